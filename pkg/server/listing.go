package server

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/internal/signal"
	"github.com/request-migration/migrate/pkg/stream"
)

const (
	// releaseTimeout bounds how long a store may take to forget an instance that leaves;
	// after it, the lease does the same.
	releaseTimeout = 2 * time.Second
	// registerAgain is the pause after a registration that failed: long enough not to burden
	// a store in trouble, and shorter than a lease.
	registerAgain = 2 * time.Second
)

// A listing is what a server is registered as. Its methods are for one goroutine at a time,
// and none may be called while follow runs.
type listing struct {
	server   *stream.Server
	registry *discovery.Registry
	own      discovery.Instance // what instances have that do not say otherwise
	log      *slog.Logger

	names []string // all that the server was ever listed as
	held  map[string]registration
}

// registration is one instance in the store.
type registration struct {
	asked discovery.Instance
	lease discovery.Lease
}

// name makes the server answer for an instance. Names are kept: who has an old list is not
// told that it is at the wrong server, but that this one is leaving, or broke.
func (l *listing) name(i discovery.Instance) {
	if record := i.Record(); !slices.Contains(l.names, record) {
		l.names = append(l.names, record)
		l.server.SetNames(l.names...)
	}
}

// complete fills in what an instance leaves out.
func (l *listing) complete(i discovery.Instance) discovery.Instance {
	i.ID = cmp.Or(i.ID, l.own.ID)
	i.Name = cmp.Or(i.Name, l.own.Name)
	i.Transport = cmp.Or(i.Transport, l.own.Transport)
	i.Address = cmp.Or(i.Address, l.own.Address)
	return i
}

// add registers an instance, or replaces what is registered under its record.
func (l *listing) add(ctx context.Context, i discovery.Instance) (discovery.Instance, error) {
	l.name(i)
	registered, lease, err := l.registry.Register(ctx, i)
	if err == nil {
		l.held[i.Record()] = registration{i, lease}
	}
	return registered, err
}

// remove releases registrations, all within releaseTimeout.
func (l *listing) remove(ctx context.Context, records ...string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	var failed []error
	for _, record := range records {
		lease := l.held[record].lease
		delete(l.held, record)
		failed = append(failed, lease.Release(ctx))
	}
	return errors.Join(failed...)
}

// follow lists what sets yields, the newest if some came while the store was slow, until
// ctx ends.
func (l *listing) follow(ctx context.Context, sets func(context.Context) iter.Seq[[]discovery.Instance]) {
	var (
		mu     sync.Mutex
		newest []discovery.Instance
		source sync.WaitGroup
	)
	came := make(chan struct{}, 1)
	source.Go(func() {
		for set := range sets(ctx) {
			mu.Lock()
			newest = set
			mu.Unlock()
			signal.Send(came)
		}
	})
	defer source.Wait()
	again := time.NewTimer(0)
	again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-came:
		case <-again.C:
		}
		mu.Lock()
		want := newest
		mu.Unlock()
		if !l.list(ctx, want) {
			again.Reset(registerAgain)
		}
	}
}

// list registers the instances of a set and releases all others. It reports whether it
// could register all.
func (l *listing) list(ctx context.Context, want []discovery.Instance) bool {
	wanted := make(map[string]discovery.Instance)
	for _, i := range want {
		i = l.complete(i)
		wanted[i.Record()] = i
	}
	for record := range l.held {
		if _, ok := wanted[record]; ok {
			continue
		}
		if err := l.remove(ctx, record); err != nil {
			l.log.Warn("a registration could not be released, and expires by itself", "instance", record, "err", err)
		} else {
			l.log.Info("deregistered", "instance", record)
		}
	}
	all := true
	for record, i := range wanted {
		if was, ok := l.held[record]; ok && was.asked == i {
			continue
		}
		switch _, err := l.add(ctx, i); {
		case ctx.Err() != nil:
			return true // the server is leaving
		case err != nil:
			all = false
			l.log.Warn("an instance could not be registered, trying again", "instance", record, "err", err)
		default:
			l.log.Info("registered", "instance", record, "address", i.Address)
		}
	}
	return all
}
