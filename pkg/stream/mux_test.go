package stream_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// counted counts the connections that a dial makes.
func counted(dial func(context.Context, string) (net.Conn, error), n *atomic.Int32) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		n.Add(1)
		return dial(ctx, addr)
	}
}

// Streams share connections, up to MaxStreams on each.
func TestStreamsShareConnections(t *testing.T) {
	for _, tt := range []struct{ max, streams, conns int }{
		{0, 128, 1}, {0, 129, 2}, {1, 3, 3}, {10, 35, 4},
	} {
		t.Run(fmt.Sprintf("%d of %d", tt.streams, tt.max), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				handler, _ := held(release)
				l := servePipe(t, &stream.Server{Handler: handler})
				var dials atomic.Int32
				c := newClient(t, &stream.Client{Dial: counted(l.dial, &dials), MaxStreams: tt.max})
				var requests sync.WaitGroup
				for i := range tt.streams {
					requests.Go(func() {
						got, err := items(t.Context(), c, "", text(fmt.Sprint(i)))
						if len(got) != 1 || got[0] != fmt.Sprintf("%q", fmt.Sprint(i)) || err != nil {
							t.Errorf("request %d got %q, %v", i, got, err)
						}
					})
				}
				synctest.Wait()
				close(release)
				requests.Wait()
				for range 10 { // one after another they need one, however many they are
					if _, err := items(t.Context(), c, "", text("x")); err != nil {
						t.Error(err)
					}
				}
				if n := int(dials.Load()); n != tt.conns {
					t.Errorf("%d connections, want %d", n, tt.conns)
				}
			})
		})
	}
}

func TestAddressesShareNothing(t *testing.T) {
	one, two := serve(t, echo("one")), serve(t, echo("two"))
	c := newClient(t, &stream.Client{})
	for addr, want := range map[string]string{one: `"from server: one, data: x"`, two: `"from server: two, data: x"`} {
		if got, err := items(t.Context(), c, addr, text("x")); len(got) != 1 || got[0] != want || err != nil {
			t.Errorf("%q, %v, want %s", got, err, want)
		}
	}
}

// A caller who does not read delays no other, and the server sends it no more
// than its credit; when it reads on, nothing is missing.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 50_000
		var sent atomic.Int64 // bytes of lines for the slow one
		data := stream.String("0123456789")
		l := servePipe(t, &stream.Server{SendTimeout: 2 * time.Hour, Handler: func(_ context.Context, req *stream.Request, send func(stream.Annotated) error) error {
			for range n {
				if err := send(stream.Annotated{Data: data}); err != nil {
					return err
				}
				if string(req.Data) == `"slow"` {
					sent.Add(int64(len(`{"stream":1,"data":"0123456789"}`) + 1))
				}
			}
			return nil
		}})
		c := newClient(t, &stream.Client{Dial: l.dial})
		ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Hour, errors.New("waited two hours for the answers to go on"))
		defer cancel()
		got := 0
		for _, err := range c.Stream(ctx, "", text("slow")) {
			if err != nil {
				t.Fatal(err)
			}
			if got++; got > 1 {
				continue
			}
			synctest.Wait()
			if b := sent.Load(); b < credit-1000 || b > credit+1000 {
				t.Errorf("server sent %d bytes to a caller who does not read, want %d", b, credit)
			}
			begin := time.Now()
			if others, err := items(ctx, c, "", text("fast")); len(others) != n || err != nil {
				t.Errorf("its neighbour got %d items, %v", len(others), err)
			}
			time.Sleep(time.Hour) // within the server's bound
			if b := sent.Load(); b > credit+1000 {
				t.Errorf("server sent %d bytes in the end", b)
			}
			if took := time.Since(begin); took != time.Hour {
				t.Errorf("its neighbour took %v", took-time.Hour)
			}
		}
		if got != n {
			t.Errorf("the slow one got %d items, want %d", got, n)
		}
	})
}

// A connection that breaks breaks its streams, and no others.
func TestBrokenConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		handler, _ := held(release)
		l := servePipe(t, &stream.Server{Handler: handler})
		var mu sync.Mutex
		var conns []net.Conn
		c := newClient(t, &stream.Client{MaxStreams: 3, Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			conn, err := l.dial(ctx, addr)
			mu.Lock()
			defer mu.Unlock()
			conns = append(conns, conn)
			return conn, err
		}})
		var requests sync.WaitGroup
		var broken, whole atomic.Int32
		for range 6 {
			requests.Go(func() {
				switch got, err := items(t.Context(), c, "", text("x")); {
				case len(got) == 1 && kindOf(err) == stream.Reset:
					broken.Add(1)
				case len(got) == 1 && err == nil:
					whole.Add(1)
				default:
					t.Errorf("%q, %v", got, err)
				}
			})
			synctest.Wait()
		}
		if len(conns) != 2 {
			t.Fatalf("%d connections, want 2", len(conns))
		}
		conns[0].Close()
		synctest.Wait()
		close(release)
		requests.Wait()
		if broken.Load() != 3 || whole.Load() != 3 {
			t.Errorf("%d broken and %d whole, want 3 and 3", broken.Load(), whole.Load())
		}
	})
}
