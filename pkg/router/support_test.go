package router

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

var testEndpoint = discovery.Endpoint{Namespace: "dynamo", Component: "backend", Name: "generate"}

// instance returns the nth instance; its address is its name.
func instance(n int) discovery.Instance {
	name := fmt.Sprintf("server%d", n)
	return discovery.Instance{
		ID: discovery.InstanceID(n), Name: name, Endpoint: testEndpoint, Transport: discovery.NDJSON, Address: name,
	}
}

func instances(n int) []discovery.Instance {
	list := make([]discovery.Instance, n)
	for i := range list {
		list[i] = instance(i + 1)
	}
	return list
}

// listing is a [Source] whose instances a test sets.
type listing struct {
	mu      sync.Mutex
	set     *discovery.Instances // nil: nothing to say yet
	err     error                // ends every watch
	changed chan struct{}
}

func newListing(list ...discovery.Instance) *listing {
	l := &listing{changed: make(chan struct{})}
	l.list(list...)
	return l
}

func (l *listing) list(list ...discovery.Instance) { l.change(&discovery.Instances{List: list}, nil) }

func (l *listing) change(set *discovery.Instances, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.set, l.err = set, err
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *listing) Watch(ctx context.Context, _ discovery.Endpoint) iter.Seq2[discovery.Instances, error] {
	return func(yield func(discovery.Instances, error) bool) {
		for ctx.Err() == nil {
			l.mu.Lock()
			set, err, changed := l.set, l.err, l.changed
			l.mu.Unlock()
			if err != nil {
				yield(discovery.Instances{}, err)
				return
			}
			if set != nil && !yield(*set, nil) {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
		yield(discovery.Instances{}, ctx.Err())
	}
}

// servers is a [Client]: functions in place of servers, by address.
type servers struct {
	mu    sync.Mutex
	by    map[string]server
	calls []string // the addresses that were asked, in order
}

// server sends items from req.From on and returns how the stream ends.
type server func(ctx context.Context, req stream.Request, send func(item string) bool) error

func (s *servers) Stream(ctx context.Context, i discovery.Instance, req stream.Request) iter.Seq2[stream.Annotated, error] {
	addr := i.Address
	return func(yield func(stream.Annotated, error) bool) {
		s.mu.Lock()
		serve := s.by[addr]
		s.calls = append(s.calls, addr)
		s.mu.Unlock()
		left := false
		if serve == nil {
			serve = breaking(stream.Unreachable, 0)
		}
		err := serve(ctx, req, func(item string) bool {
			left = !yield(stream.Annotated{Data: stream.String(item)}, nil)
			return !left
		})
		if err != nil && !left {
			yield(stream.Annotated{}, err)
		}
	}
}

func (s *servers) asked() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.calls, " ")
}

// whole answers with every character of the request.
func whole(_ context.Context, req stream.Request, send func(string) bool) error {
	return part(req, len(req.Data), send)
}

func part(req stream.Request, to int, send func(string) bool) error {
	text, _ := req.Text()
	for i := req.From; i < min(to, len(text)); i++ {
		if !send(text[i : i+1]) {
			break
		}
	}
	return nil
}

// breaking sends the items before index at, then breaks.
func breaking(kind stream.Kind, at int) server {
	return func(_ context.Context, req stream.Request, send func(string) bool) error {
		_ = part(req, at, send) // it has no error
		return &stream.Break{Kind: kind, Reason: "as told"}
	}
}

// after waits before it serves.
func after(d time.Duration, serve server) server {
	return func(ctx context.Context, req stream.Request, send func(string) bool) error {
		select {
		case <-time.After(d):
			return serve(ctx, req, send)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// inOrder picks the first instance there is.
type inOrder struct{}

func (inOrder) Pick(_ Choice, avail []*Peer) *Peer { return avail[0] }

// start returns a router that picks in order, closed at the test's end.
func start(tb testing.TB, cfg Config) *Router {
	tb.Helper()
	cfg.Endpoint = testEndpoint
	if cfg.Picker == nil {
		cfg.Picker = inOrder{}
	}
	if cfg.Client == nil {
		cfg.Client = &servers{}
	}
	r := New(cfg)
	tb.Cleanup(r.Close)
	return r
}

// ask makes a request and returns the items of the answer as one string, those
// of each attempt after a bar, and how it ended.
func ask(ctx context.Context, r *Router, req Request) (string, error) {
	var b strings.Builder
	attempt := 1
	for item, err := range r.Do(ctx, req) {
		if err != nil {
			return b.String(), err
		}
		for ; attempt < item.Attempt; attempt++ {
			b.WriteByte('|')
		}
		s, _ := item.Text()
		b.WriteString(s)
	}
	return b.String(), nil
}

func hello() Request { return Request{ID: "r1", Data: stream.String("hello")} }

// traced is hello, followed by t.
func traced(t *Trace) Request {
	req := hello()
	req.Trace = t
	return req
}

// names returns the names of peers.
func names(peers []*Peer) string {
	all := make([]string, len(peers))
	for i, p := range peers {
		all[i] = p.Name
	}
	return strings.Join(all, " ")
}

var errBoom = errors.New("boom")
