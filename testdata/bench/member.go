package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/etcd"
	"github.com/request-migration/migrate/pkg/discovery/file"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
)

// The stores, which are also the sides of a member.
const (
	onFile = "file"
	onEtcd = "etcd"
)

// member is the worker that takes part in discovery: as the servers of an
// endpoint, as its clients, or as both. Nothing that it serves is ever slow: all
// instances are one server.
type member struct {
	kind, at string // the store, and its directory or URL
	endpoint discovery.Endpoint
	server   stream.Server
	address  string
	serving  sync.WaitGroup

	mu      sync.Mutex // guards stores
	stores  []discovery.Store
	shared  *discovery.Registry // of records that share a store; nil until it is used
	n       int                 // instances registered
	reports int                 // that it has made
	client  stream.Client
	routers []*router.Router
}

// grow says more about what a member is to do.
type grow struct {
	Each   bool // a store for each record, as each server has
	AtOnce int  // how many records are put at a time
	Rate   int  // changes a second
}

func newMember(kind, name, at string) (*member, error) {
	m := &member{kind: kind, at: at, endpoint: discovery.Endpoint{Namespace: "growth", Component: name, Name: "generate"}}
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	m.address = l.Addr().String()
	m.server.Handler = stream.Echo("server1", 0)
	m.serving.Go(func() { _ = m.server.Serve(l) }) // it is closed at the end; a request that fails says so
	return m, nil
}

func (m *member) do(ctx context.Context, o order) (r reply, err error) {
	switch o.Do {
	case "usage":
		r.CPU, err = usage()
		r.Allocated = allocated()
	case "register":
		err = m.register(ctx, o.N, o.Grow)
	case "change":
		r.Figures, err = m.change(ctx, o.For, o.Grow)
	case "report":
		err = m.report(ctx, o.N)
	case "watch":
		err = m.watch(ctx, o.N)
	case "see":
		err = m.see(ctx, o.N, instancesIn)
	case "see reports":
		err = m.see(ctx, o.N, reportsIn)
	case "seen":
		r.Figures = figures{"instances": float64(m.seen(instancesIn))}
	case "list":
		r.Figures, err = m.list(ctx)
	default:
		err = fmt.Errorf("a member knows no order %q", o.Do)
	}
	return r, err
}

func (m *member) close() {
	for _, r := range m.routers {
		r.Close()
	}
	m.client.Close()
	// Together, as each may have to say goodbye to the store.
	_ = together(len(m.stores), func(i int) error { return m.stores[i].Close() }) // its records expire
	m.server.Close()
	m.serving.Wait()
}

// open returns a registry over a store of its own.
func (m *member) open(ctx context.Context) (*discovery.Registry, error) {
	var store discovery.Store
	var err error
	if m.kind == onFile {
		store, err = file.Open(file.Config{Dir: m.at})
	} else {
		store, err = etcd.Open(ctx, etcd.Config{Endpoints: []string{m.at}})
	}
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stores = append(m.stores, store)
	return discovery.NewRegistry(store, nil), nil
}

// registry returns the registry that records share unless each has its own.
func (m *member) registry(ctx context.Context) (r *discovery.Registry, err error) {
	if m.shared == nil {
		m.shared, err = m.open(ctx)
	}
	return m.shared, err
}

// instance is the i-th instance, from 1.
func (m *member) instance(i int) discovery.Instance {
	return discovery.Instance{
		ID: discovery.InstanceID(i), Name: fmt.Sprintf("server%d", i),
		Endpoint: m.endpoint, Transport: discovery.NDJSON, Address: m.address,
	}
}

// register adds instances until there are n.
func (m *member) register(ctx context.Context, n int, g grow) error {
	registry, err := m.registry(ctx)
	if err != nil {
		return err
	}
	first := m.n
	m.n = max(n, m.n)
	return each(g.AtOnce, m.n-first, func(i int) error {
		mine := registry
		if g.Each {
			var err error
			if mine, err = m.open(ctx); err != nil {
				return err
			}
		}
		_, _, err := mine.Register(ctx, m.instance(first+i+1))
		return err
	})
}

// each runs f for 0 to n-1, some at once, and returns all errors.
func each(atOnce, n int, f func(i int) error) error {
	atOnce = max(atOnce, 1)
	return together(atOnce, func(worker int) error {
		for i := worker; i < n; i += atOnce {
			if err := f(i); err != nil {
				return err
			}
		}
		return nil
	})
}

// change adds an instance and removes it, again and again, at a steady rate.
func (m *member) change(ctx context.Context, span time.Duration, g grow) (figures, error) {
	registry, err := m.registry(ctx)
	if err != nil {
		return nil, err
	}
	begin, step := time.Now(), time.Second/time.Duration(g.Rate)
	changes := int(span / step)
	err = each(g.AtOnce, changes/2, func(i int) error {
		time.Sleep(time.Until(begin.Add(time.Duration(2*i) * step)))
		_, lease, err := registry.Register(ctx, m.instance(m.n+1+i))
		if err != nil {
			return err
		}
		time.Sleep(time.Until(begin.Add(time.Duration(2*i+1) * step)))
		return lease.Release(ctx)
	})
	return figures{"changes/s": float64(changes) / max(time.Since(begin), span).Seconds()}, err
}

// reportTime is how long reports stand: longer than all that is measured on them.
const reportTime = 5 * time.Minute

// report reports instances down until n are.
func (m *member) report(ctx context.Context, n int) error {
	registry, err := m.registry(ctx)
	if err != nil {
		return err
	}
	first := m.reports
	m.reports = max(n, m.reports)
	return each(16, m.reports-first, func(i int) error {
		now := time.Now()
		return registry.Report(ctx, discovery.Report{
			Endpoint: m.endpoint, Instance: discovery.InstanceID(first + i + 1), Reporter: "bench",
			Kind: string(stream.Failed), Reason: stream.ErrFailed.Error(),
			Since: now, Until: now.Add(reportTime),
		})
	})
}

// watch starts clients, each with a store of its own, until there are n.
func (m *member) watch(ctx context.Context, n int) error {
	for len(m.routers) < n {
		registry, err := m.open(ctx)
		if err != nil {
			return err
		}
		m.routers = append(m.routers, router.New(router.Config{
			Endpoint: m.endpoint,
			Source:   registry,
			Reports:  registry,
			Client:   router.StreamClient(&m.client),
			Cooldown: reportTime, // so that reports are heeded to their end
		}))
	}
	return nil
}

func instancesIn(t *router.Tiers) int { return len(t.Source) }
func reportsIn(t *router.Tiers) int   { return len(t.ByOthers) }

// see waits until every client has n of what in counts.
func (m *member) see(ctx context.Context, n int, in func(*router.Tiers) int) error {
	for m.seen(in) != n {
		if err := rest(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("waiting for %d to be seen: a client sees %d: %w", n, m.seen(in), err)
		}
	}
	return nil
}

// seen returns how many of what in counts the client has that has the fewest.
func (m *member) seen(in func(*router.Tiers) int) int {
	fewest := -1
	for _, r := range m.routers {
		if n := in(r.Tiers()); fewest < 0 || n < fewest {
			fewest = n
		}
	}
	return fewest
}

// list times the first list that a new client asks for.
func (m *member) list(ctx context.Context) (figures, error) {
	registry, err := m.open(ctx)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	set, err := registry.List(ctx, m.endpoint)
	took := time.Since(begin)
	m.mu.Lock()
	last := len(m.stores) - 1
	store := m.stores[last]
	m.stores = m.stores[:last]
	m.mu.Unlock()
	return figures{"list": millis(took), "instances": float64(len(set.List))}, errors.Join(err, store.Close())
}

// allocated is how many bytes this process has allocated so far.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}
