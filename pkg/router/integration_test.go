package router_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/router/receipt"
	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/fault"
)

var endpoint = discovery.Endpoint{Namespace: "dynamo", Component: "backend", Name: "generate"}

// serve runs a server on a loopback socket.
func serve(t *testing.T, id discovery.InstanceID, name string, s *stream.Server) discovery.Instance {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; !errors.Is(err, stream.ErrClosed) {
			t.Errorf("%s: Serve returned %v", name, err)
		}
	})
	return discovery.Instance{ID: id, Name: name, Endpoint: endpoint, Transport: discovery.NDJSON, Address: l.Addr().String()}
}

// discover lists the instances in a store of this process.
func discover(t *testing.T, instances ...discovery.Instance) *discovery.Registry {
	t.Helper()
	store := new(discovery.Mem)
	t.Cleanup(func() { _ = store.Close() }) // of a store in memory: no error
	registry := discovery.NewRegistry(store, nil)
	for _, i := range instances {
		if _, _, err := registry.Register(t.Context(), i); err != nil {
			t.Fatal(err)
		}
	}
	return registry
}

// route returns a router over sockets that resumes. Instances that fail stay down, so
// that no test depends on how long it takes.
func route(t *testing.T, registry *discovery.Registry) *router.Router {
	t.Helper()
	client := &stream.Client{}
	r := router.New(router.Config{
		Endpoint: endpoint,
		Source:   registry,
		Client:   router.StreamClient(client),
		Picker:   router.RoundRobin(),
		Cooldown: time.Hour,
		Wait:     time.Hour,
	})
	t.Cleanup(func() {
		r.Close()
		client.Close()
	})
	return r
}

// answer returns the characters that echo servers have sent, and the receipt.
func answer(ctx context.Context, r *router.Router, req router.Request) (string, receipt.Receipt, error) {
	var b strings.Builder
	var rec receipt.Recorder
	req.Trace = rec.Trace()
	for item, err := range r.Do(ctx, req) {
		if err != nil {
			return b.String(), rec.Receipt(), err
		}
		s, _ := item.Text()
		_, char, _ := strings.Cut(s, ", data: ")
		b.WriteString(char)
	}
	return b.String(), rec.Receipt(), nil
}

func TestEveryFaultOverSockets(t *testing.T) {
	t.Parallel()
	for _, kind := range fault.Kinds() {
		if kind == fault.Exit || kind == fault.Stall {
			continue // ends this process; takes 15 s of real time
		}
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			faulty := fault.Inject(stream.Echo("server1", 0), fault.Fault{Mode: fault.Always, Kind: kind, After: 2})
			one := serve(t, 1, "server1", &stream.Server{Handler: faulty.Handle, Admit: faulty.Admit, Resumes: true})
			two := serve(t, 2, "server2", &stream.Server{Handler: stream.Echo("server2", 0), Resumes: true})
			r := route(t, discover(t, one, two))
			got, receipt, err := answer(t.Context(), r, router.Request{Data: stream.String("héllo wörld"), Instance: "server1"})
			if got != "héllo wörld" || err != nil || receipt.Repeated != 0 {
				t.Fatalf("got %q, %v, %+v", got, err, receipt)
			}
			reported := kind != fault.Overload
			switch {
			case !reported && (len(receipt.Refusals) != 1 || receipt.Refusals[0].Reported):
				t.Errorf("refusals: %+v", receipt.Refusals)
			case reported && (len(receipt.Attempts) != 2 || receipt.Attempts[0].Kind == "" || !receipt.Attempts[0].Reported):
				t.Errorf("attempts: %+v", receipt.Attempts)
			}
			if avail := r.Tiers().Avail; reported && (len(avail) != 1 || avail[0].ID != two.ID) {
				t.Errorf("%d instances are available", len(avail))
			}
		})
	}
}

// halfway is an echo server that stops in the middle of the answer to every
// first attempt, until it may go on.
type halfway struct {
	reached sync.WaitGroup // the streams that are to get there
	goOn    chan struct{}
	mu      sync.Mutex
	streams map[string]int // by request
}

func (h *halfway) server(name string) *stream.Server {
	h.goOn, h.streams = make(chan struct{}), make(map[string]int)
	echo := stream.Echo(name, 0)
	return &stream.Server{Resumes: true, Handler: func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		h.mu.Lock()
		h.streams[req.ID]++
		h.mu.Unlock()
		n := 0
		return echo(ctx, req, func(a stream.Annotated) error {
			if n++; n == 6 && req.Attempt == 1 {
				h.reached.Done()
				select {
				case <-h.goOn:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return send(a)
		})
	}}
}

// A server dies with half of 200 running streams.
func TestServerDiesUnderLoad(t *testing.T) {
	const requests = 200
	var dies, lives halfway
	dying := dies.server("server1")
	one, two := serve(t, 1, "server1", dying), serve(t, 2, "server2", lives.server("server2"))
	r := route(t, discover(t, one, two))
	dies.reached.Add(requests / 2)
	lives.reached.Add(requests / 2)
	var callers sync.WaitGroup
	for i := range requests {
		callers.Go(func() {
			text := fmt.Sprintf("answer number %d", i)
			got, receipt, err := answer(t.Context(), r, router.Request{ID: fmt.Sprint(i), Data: stream.String(text)})
			if got != text || err != nil || receipt.Repeated != 0 || len(receipt.Attempts) > 2 {
				t.Errorf("got %q, %v, %+v", got, err, receipt)
			}
		})
	}
	dies.reached.Wait()
	lives.reached.Wait()
	dying.Close()
	close(lives.goOn)
	callers.Wait()
	for id, n := range dies.streams {
		if n != 1 {
			t.Errorf("request %s came to the dead server %d times", id, n)
		}
	}
	if n := len(dies.streams); n != requests/2 {
		t.Errorf("%d requests came to the dead server, want half of them", n)
	}
	if avail := r.Tiers().Avail; len(avail) != 1 || avail[0].ID != two.ID {
		t.Errorf("%d instances are available", len(avail))
	}
}

// A server that is shut down sends its streams and clients elsewhere, and is not
// reported.
func TestDrainUnderLoad(t *testing.T) {
	const requests = 50
	var leaves, stays halfway
	leaving := leaves.server("server1")
	one, two := serve(t, 1, "server1", leaving), serve(t, 2, "server2", stays.server("server2"))
	r := route(t, discover(t, one, two))
	leaves.reached.Add(requests / 2)
	stays.reached.Add(requests / 2)
	var callers sync.WaitGroup
	for i := range requests {
		callers.Go(func() {
			text := fmt.Sprintf("answer number %d", i)
			got, receipt, err := answer(t.Context(), r, router.Request{ID: fmt.Sprint(i), Data: stream.String(text)})
			if got != text || err != nil || receipt.Repeated != 0 {
				t.Errorf("got %q, %v, %+v", got, err, receipt)
			}
			for _, a := range receipt.Attempts {
				if a.Reported {
					t.Errorf("reported: %+v", a)
				}
			}
		})
	}
	leaves.reached.Wait()
	stays.reached.Wait()
	now, cancel := context.WithCancel(t.Context())
	cancel()
	if n := leaving.Shutdown(now); n != requests/2 {
		t.Errorf("%d streams were handed back, want %d", n, requests/2)
	}
	close(stays.goOn)
	callers.Wait()
	if n := len(r.Tiers().Down); n != 0 {
		t.Errorf("%d instances are down", n)
	}
}
