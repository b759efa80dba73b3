//go:build linux

package cmd_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/file"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/router/receipt"
	"github.com/request-migration/migrate/pkg/stream"
)

// sized answers a request such as "[3, 1000000]" with items of so many
// characters. Any space after it makes the request larger.
func sized(_ context.Context, req *stream.Request, send func(stream.Annotated) error) error {
	text, _ := req.Text()
	var sizes []int
	if err := json.Unmarshal([]byte(text), &sizes); err != nil {
		return err
	}
	for i := req.From; i < len(sizes); i++ {
		if err := send(stream.Annotated{Data: stream.String(sizedItem(i, sizes[i]))}); err != nil {
			return err
		}
	}
	return nil
}

func sizedItem(i, size int) string { return strings.Repeat(string(rune('a'+i%26)), size) }

// sizedAnswer is the right answer to such a request.
func sizedAnswer(sizes ...int) []string {
	items := make([]string, len(sizes))
	for i, size := range sizes {
		items[i] = sizedItem(i, size)
	}
	return items
}

func sizedRequest(sizes ...int) string {
	text, err := json.Marshal(sizes)
	if err != nil {
		panic(err) // numbers can be marshalled
	}
	return string(text)
}

// handle runs a server of this process in the host, which listens on [port] and
// is registered with address, until the test ends.
func (h *host) handle(t *testing.T, name, address string, handler stream.Handler) {
	t.Helper()
	server := &stream.Server{Handler: handler, Resumes: true, Logger: testLog(t).With("server", name)}
	l := h.listen(t, port)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(l); !errors.Is(err, stream.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	})
	t.Cleanup(func() {
		inTime(t, name+" to close", func() {
			server.Close()
			serving.Wait()
		})
	})
	_, _, err := h.bed.registry(t).Register(t.Context(), discovery.Instance{
		ID: discovery.NewInstanceID(), Name: name, Endpoint: defaultEndpoint(),
		Transport: discovery.NDJSON, Address: address,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// inTime calls f, and gives up waiting for it where it takes too long.
func inTime(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	receive(t, done, "waited in vain for "+what)
}

// testLog is shown if the test fails.
func testLog(t *testing.T) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// at is the host's address with a port.
func (h *host) at(port string) string { return net.JoinHostPort(h.addr, port) }

// registry is one over the bed's file store, until the test ends.
func (b *bed) registry(t *testing.T) *discovery.Registry {
	t.Helper()
	store, err := file.Open(file.Config{Dir: b.kv})
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

func defaultEndpoint() discovery.Endpoint {
	return discovery.Endpoint{Namespace: "dynamo", Component: "backend", Name: "generate"}
}

// A caller makes requests from a host, in this process: for tests that do
// something between two requests of one client.
type caller struct {
	router *router.Router

	mu    sync.Mutex
	dials map[string]int // that succeeded, by address
}

// caller returns a client that picks its instances in turn.
func (h *host) caller(t *testing.T) *caller {
	t.Helper()
	c := &caller{dials: make(map[string]int)}
	client := &stream.Client{Logger: testLog(t), Dial: func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := h.dial(ctx, addr)
		if err == nil {
			c.mu.Lock()
			c.dials[addr]++
			c.mu.Unlock()
		}
		return conn, err
	}}
	registry := h.bed.registry(t)
	c.router = router.New(router.Config{
		Endpoint: defaultEndpoint(), Client: router.StreamClient(client), Picker: router.RoundRobin(), Source: registry, Reports: registry, Wait: patience,
	})
	t.Cleanup(func() {
		inTime(t, "the client to close", func() {
			c.router.Close()
			client.Close()
		})
	})
	return c
}

// dialed returns how many connections there have been to addr.
func (c *caller) dialed(addr string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dials[addr]
}

// ask makes a request. If the answer ends well it is the one that was asked for.
func (c *caller) ask(ctx context.Context, sizes ...int) (receipt.Receipt, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var recorder receipt.Recorder
	var got []string
	req := router.Request{Data: stream.String(sizedRequest(sizes...)), Trace: recorder.Trace()}
	for item, err := range c.router.Do(ctx, req) {
		if err != nil {
			return recorder.Receipt(), err
		}
		text, _ := item.Text()
		got = append(got, text)
	}
	if want := sizedAnswer(sizes...); !slices.Equal(got, want) {
		return recorder.Receipt(), fmt.Errorf("the answer has %d items %.100q, want %d items %.100q", len(got), got, len(want), want)
	}
	return recorder.Receipt(), nil
}

// askSmoothly is ask for a request that must succeed in its first attempt.
func (c *caller) askSmoothly(ctx context.Context, sizes ...int) error {
	receipt, err := c.ask(ctx, sizes...)
	if err != nil {
		return fmt.Errorf("%w: the receipt is %+v", err, receipt)
	}
	for _, a := range receipt.Attempts {
		if len(receipt.Attempts) > 1 || a.Kind != "" || a.Reported {
			return fmt.Errorf("the attempts are %+v, want one that no break ended", receipt.Attempts)
		}
	}
	return nil
}
