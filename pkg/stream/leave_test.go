package stream_test

import (
	"context"
	"errors"
	"iter"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/fault"
)

// Leaving the loop early, in whatever way, cancels the request at the server
// and leaves the other streams alone.
func TestLeavingEarly(t *testing.T) {
	fine := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	for name, leave := range map[string]func(seq iter.Seq2[stream.Annotated, error], cancel func()){
		"break": func(seq iter.Seq2[stream.Annotated, error], _ func()) {
			for _, err := range seq {
				fine(err)
				break
			}
		},
		"panic": func(seq iter.Seq2[stream.Annotated, error], _ func()) {
			defer func() { _ = recover() }()
			for _, err := range seq {
				fine(err)
				panic("in the loop")
			}
		},
		"exit": func(seq iter.Seq2[stream.Annotated, error], _ func()) {
			done := make(chan bool)
			go func() {
				defer close(done)
				for _, err := range seq {
					fine(err)
					runtime.Goexit()
				}
			}()
			<-done
		},
		"cancel": func(seq iter.Seq2[stream.Annotated, error], cancel func()) {
			for _, err := range seq {
				cancel()
				if errors.Is(err, context.Canceled) {
					return
				}
				fine(err)
			}
		},
	} {
		passed := t.Run(name, func(t *testing.T) {
			told := make(chan error, 1)
			addr := serve(t, &stream.Server{Handler: func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
				if string(req.Data) == `"neighbour"` {
					<-ctx.Done()
					return ctx.Err()
				}
				for {
					if err := send(stream.Annotated{Data: req.Data}); err != nil {
						<-ctx.Done()
						told <- context.Cause(ctx)
						return err
					}
				}
			}})
			var dials atomic.Int32
			c := newClient(t, &stream.Client{Dial: counted(toAddr(addr), &dials), StartTimeout: patience, StallTimeout: patience})
			done := make(chan error)
			go func() {
				_, err := items(t.Context(), c, "", text("neighbour"))
				done <- err
			}()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			leave(c.Stream(ctx, "", text("x")), cancel)
			if err := await(t, told, "the handler to be told of the cancel"); err == nil || err.Error() != "client has cancelled the request" {
				t.Errorf("the handler was told %v", err)
			}
			if n := dials.Load(); n != 1 {
				t.Errorf("%d connections, want 1", n)
			}
			c.Close()
			if err := <-done; !errors.Is(err, stream.ErrClosed) {
				t.Errorf("the neighbour ended with %v", err)
			}
		})
		if !passed {
			return // the others would wait as long
		}
	}
}

// Close ends all streams: running, starting, dialling and later ones.
func TestCloseEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stream.Client{MaxStreams: 1}
		answers := scripted(t, answer(start, itemA), answer())
		c.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			if addr == "hangs" {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return answers(ctx, addr)
		}
		var requests sync.WaitGroup
		ask := func(addr string, n int) {
			if got, err := items(t.Context(), c, addr, text("x")); !errors.Is(err, stream.ErrClosed) || len(got) != n {
				t.Errorf("%s: %q, %v, want %d items and ErrClosed", addr, got, err, n)
			}
		}
		requests.Go(func() { ask("runs", 1) })
		synctest.Wait()
		requests.Go(func() { ask("starts", 0) })
		requests.Go(func() { ask("hangs", 0) })
		synctest.Wait()
		begin := time.Now()
		for range 2 {
			c.Close()
		}
		requests.Wait()
		ask("late", 0)
		if took := time.Since(begin); took != 0 {
			t.Errorf("took %v", took)
		}
	})
	new(stream.Client).Close()
}

// Close leaves nothing running on real sockets. In the bubbles of the other
// tests, synctest checks that.
func TestNothingLeaks(t *testing.T) {
	before := runtime.NumGoroutine()
	s := faulty(fault.Fault{Mode: fault.Always, Kind: fault.Close, After: 3})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- s.Serve(l) }()
	c := &stream.Client{StartTimeout: patience, MaxStreams: 4}
	var requests sync.WaitGroup
	for i := range 40 {
		requests.Go(func() {
			for range 5 {
				_, _ = items(t.Context(), c, l.Addr().String(), text("hello"[:i%6])) // half of them break
			}
		})
	}
	requests.Wait()
	c.Close()
	s.Close()
	if err := <-served; !errors.Is(err, stream.ErrClosed) {
		t.Errorf("Serve returned %v", err)
	}
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			b := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, b[:runtime.Stack(b, true)])
		}
	}
}
