package server_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/file"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/server"
	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/streamtest"
)

// patience bounds each wait, so that one that hangs fails the test.
const patience = time.Minute

func endpoint() discovery.Endpoint {
	return discovery.Endpoint{Namespace: "demo", Component: "text", Name: "upper"}
}

// upper answers a string with its characters in upper case.
func upper(_ context.Context, req *stream.Request, send func(stream.Annotated) error) error {
	text, ok := req.Text()
	if !ok {
		return errors.New("data is not a string")
	}
	for _, r := range strings.ToUpper(text) {
		if err := send(stream.Annotated{Data: stream.String(string(r))}); err != nil {
			return err
		}
	}
	return nil
}

func newRegistry(t *testing.T) *discovery.Registry {
	t.Helper()
	store, err := file.Open(file.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return discovery.NewRegistry(store, nil)
}

// listed waits until the registry lists n instances.
func listed(t *testing.T, r *discovery.Registry, n int) []discovery.Instance {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for set, err := range r.Watch(ctx, endpoint()) {
		if err != nil {
			t.Fatalf("waiting for %d instances: %v", n, err)
		}
		if len(set.List) == n {
			return set.List
		}
	}
	return nil
}

func ask(t *testing.T, registry *discovery.Registry) (string, error) {
	t.Helper()
	client := &stream.Client{}
	defer client.Close()
	r := router.New(router.Config{Endpoint: endpoint(), Source: registry, Client: router.StreamClient(client), Wait: patience})
	defer r.Close()
	var answer strings.Builder
	for item, err := range r.Do(t.Context(), router.Request{Data: stream.String("hello")}) {
		if err != nil {
			return answer.String(), err
		}
		s, _ := item.Text()
		answer.WriteString(s)
	}
	return answer.String(), nil
}

// A server is listed while it runs, answers, and is not listed once it has left.
func TestServe(t *testing.T) {
	t.Parallel()
	registry := newRegistry(t)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	ended := make(chan error, 1)
	go func() {
		ended <- server.Serve(ctx, server.Config{
			Server: &stream.Server{Handler: upper}, Registry: registry, Instance: discovery.Instance{Name: "a", Endpoint: endpoint()},
		})
	}()
	i := listed(t, registry, 1)[0]
	if i.ID == 0 || i.Incarnation == "" || i.Transport != discovery.NDJSON || !strings.HasPrefix(i.Address, "127.0.0.1:") {
		t.Errorf("it is registered as %+v", i)
	}
	if got, err := ask(t, registry); got != "HELLO" || err != nil {
		t.Errorf("the answer is %q, %v", got, err)
	}
	leave()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("Serve did not return after its context had ended")
	}
	listed(t, registry, 0)
}

// A server takes connections from a listener that it is given, and closes it, so that a
// test needs no socket and no time.
func TestListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network streamtest.Network
		l := network.Listen("a:1")
		store := new(discovery.Mem)
		registry := discovery.NewRegistry(store, nil)
		r, err := server.Start(t.Context(), server.Config{
			Server: &stream.Server{Handler: upper}, Registry: registry,
			Listener: l, Instance: discovery.Instance{Endpoint: endpoint()},
		})
		if err != nil {
			t.Fatal(err)
		}
		client := &stream.Client{Dial: network.Dial}
		defer client.Close()
		var got string
		for item, err := range client.Stream(t.Context(), r.Instance().Address, stream.Request{Data: stream.String("hi")}) {
			if err != nil {
				t.Fatal(err)
			}
			s, _ := item.Text()
			got += s
		}
		if got != "HI" {
			t.Errorf("the answer is %q", got)
		}
		if _, err := r.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("its listener, once it has left: %v", err)
		}
		// It cannot register now, and closes the listener all the same.
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		l = network.Listen("a:1")
		if err := server.Serve(t.Context(), server.Config{
			Server: &stream.Server{Handler: upper}, Registry: registry,
			Listener: l, Instance: discovery.Instance{Endpoint: endpoint()},
		}); !errors.Is(err, discovery.ErrClosed) {
			t.Errorf("with a closed store: %v", err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the listener of a server that could not start: %v", err)
		}
	})
}

// A running stream may end while its server leaves; one that takes longer is handed back.
func TestDrain(t *testing.T) {
	t.Parallel()
	registry := newRegistry(t)
	began, goOn := make(chan struct{}, 2), make(chan struct{})
	slow := func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		began <- struct{}{}
		select {
		case <-goOn:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		return upper(ctx, req, send)
	}
	r, err := server.Start(t.Context(), server.Config{
		Server: &stream.Server{Handler: slow}, Registry: registry, Instance: discovery.Instance{Endpoint: endpoint()},
	})
	if err != nil {
		t.Fatal(err)
	}
	answers := make(chan string, 1)
	go func() {
		got, err := ask(t, registry)
		answers <- fmt.Sprint(got, err)
	}()
	<-began
	if n := r.Streams(); n != 1 {
		t.Errorf("%d streams run", n)
	}
	stopped := make(chan server.End, 1)
	go func() {
		end, err := r.Stop(t.Context())
		if err != nil {
			t.Error(err)
		}
		stopped <- end
	}()
	listed(t, registry, 0) // it leaves, and its stream still runs
	close(goOn)
	if got := <-answers; got != "HELLO<nil>" {
		t.Errorf("the answer of a server that leaves is %s", got)
	}
	if end := <-stopped; end.HandedBack != 0 || end.Undone != nil {
		t.Errorf("it left with %+v", end)
	}
}

func TestStopHandsBack(t *testing.T) {
	t.Parallel()
	registry := newRegistry(t)
	began := make(chan struct{}, 1)
	r, err := server.Start(t.Context(), server.Config{
		Server: &stream.Server{Handler: func(ctx context.Context, _ *stream.Request, _ func(stream.Annotated) error) error {
			began <- struct{}{}
			<-ctx.Done()
			return context.Cause(ctx)
		}},
		Registry: registry, Instance: discovery.Instance{Endpoint: endpoint()},
	})
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := ask(t, registry)
		answered <- err
	}()
	<-began
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if end, err := r.Stop(ctx); end.HandedBack != 1 || err != nil {
		t.Errorf("it left with %+v, %v", end, err)
	}
	if err := <-answered; !errors.Is(err, stream.Draining) {
		t.Errorf("the request ended with %v", err)
	}
}

// What cannot start says why, and leaves nothing behind.
func TestCannotStart(t *testing.T) {
	t.Parallel()
	registry := newRegistry(t)
	for want, cfg := range map[string]server.Config{
		"listening on 256.0.0.1:0": {Listen: "256.0.0.1:0", Instance: discovery.Instance{Endpoint: endpoint()}},
		"is every address":         {Listen: "0.0.0.0:0", Instance: discovery.Instance{Endpoint: endpoint()}},
		"a part is empty":          {},
	} {
		cfg.Server, cfg.Registry = &stream.Server{Handler: upper}, registry
		if err := server.Serve(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	listed(t, registry, 0)
	for want, cfg := range map[string]server.Config{
		"Config.Server is nil":         {Registry: registry},
		"Config.Server.Handler is nil": {Server: &stream.Server{}, Registry: registry},
		"Config.Registry is nil":       {Server: &stream.Server{Handler: upper}},
	} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, want) {
					t.Errorf("it panics with %s, want %s", got, want)
				}
			}()
			_, _ = server.Start(t.Context(), cfg)
		}()
	}
}

// What a server is registered as follows the sets of Listed.
func TestListed(t *testing.T) {
	t.Parallel()
	registry := newRegistry(t)
	sets := make(chan []discovery.Instance)
	ended := make(chan struct{})
	running, err := server.Start(t.Context(), server.Config{
		Server: &stream.Server{Handler: upper}, Registry: registry,
		Instance: discovery.Instance{Name: "a", Endpoint: discovery.Endpoint{Namespace: "demo", Component: "own", Name: "upper"}},
		Listed: func(ctx context.Context) iter.Seq[[]discovery.Instance] {
			return func(yield func([]discovery.Instance) bool) {
				defer close(ended)
				for {
					select {
					case set := <-sets:
						if !yield(set) {
							return
						}
					case <-ctx.Done():
						return
					}
				}
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	other := endpoint()
	other.Component = "other"
	sets <- []discovery.Instance{{Endpoint: endpoint()}, {Endpoint: other, Resume: discovery.ResumeNo}}
	i := listed(t, registry, 1)[0]
	if i.ID != running.Instance().ID || i.Name != "a" || i.Address != running.Instance().Address {
		t.Errorf("it is registered as %+v, want id, name and address of %+v", i, running.Instance())
	}
	if got, err := ask(t, registry); got != "HELLO" || err != nil {
		t.Errorf("the answer is %q, %v", got, err)
	}
	list, err := registry.List(t.Context(), other)
	if err != nil || len(list.List) != 1 || list.List[0].Resume != discovery.ResumeNo {
		t.Errorf("of the other endpoint there is %+v, %v", list, err)
	}
	sets <- []discovery.Instance{{Endpoint: endpoint(), Resume: discovery.ResumeIndex}}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for set, err := range registry.Watch(ctx, endpoint()) {
		if err != nil {
			t.Fatalf("waiting for the changed instance: %v", err)
		}
		if len(set.List) != 1 {
			t.Fatalf("there are %d instances, want the one all the time", len(set.List))
		}
		if set.List[0].Resume == discovery.ResumeIndex {
			break
		}
	}
	sets <- nil
	listed(t, registry, 0)
	sets <- []discovery.Instance{{Endpoint: endpoint()}}
	listed(t, registry, 1)
	if end, err := running.Stop(t.Context()); err != nil || end.Undone != nil {
		t.Errorf("Stop returned %+v, %v", end, err)
	}
	listed(t, registry, 0)
	select {
	case <-ended:
	default:
		t.Error("Stop did not wait for Listed")
	}
}
