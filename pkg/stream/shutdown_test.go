package stream_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// A draining server refuses new requests and lets the others finish.
func TestShutdownLetsStreamsFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stream.Server{Handler: stream.Echo("server1", time.Second)}
		l := servePipe(t, s)
		c := newClient(t, &stream.Client{Dial: l.dial})
		var requests sync.WaitGroup
		for _, s := range []string{"hello", "hi"} {
			requests.Go(func() {
				if got, err := collect(t, c, "", text(s)); got != s || err != nil {
					t.Errorf("%q, %v, want %q", got, err, s)
				}
			})
		}
		time.Sleep(500 * time.Millisecond)
		begin := time.Now()
		go func() {
			time.Sleep(time.Second)
			for _, c := range []*stream.Client{c, newClient(t, &stream.Client{Dial: l.dial})} {
				if _, err := items(t.Context(), c, "", text("new")); kindOf(err) != stream.Draining {
					t.Errorf("a new request: %v, want draining", err)
				}
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if n := s.Shutdown(ctx); n != 0 {
			t.Errorf("handed back %d streams, want none", n)
		}
		if took := time.Since(begin); took != 3500*time.Millisecond {
			t.Errorf("took %v, want 3.5s", took)
		}
		requests.Wait()
		synctest.Wait() // until the client knows that its connection is closed
		if _, err := items(t.Context(), c, "", text("late")); kindOf(err) != stream.Unreachable {
			t.Errorf("a request afterwards: %v, want unreachable", err)
		}
	})
}

// Streams that have not finished in time are handed back.
func TestShutdownHandsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stream.Server{Handler: stream.Echo("server1", time.Second)}
		l := servePipe(t, s)
		var requests sync.WaitGroup
		for i := range 3 {
			c := newClient(t, &stream.Client{Dial: l.dial})
			requests.Go(func() {
				got, err := collect(t, c, "", text("hello"))
				if got != "hel" || kindOf(err) != stream.Draining {
					t.Errorf("client %d: %q, %v, want hel and draining", i, got, err)
				}
			})
		}
		conn, err := l.dial(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		person := newPeer(t, conn)
		person.say(`{"data":"hello"}`)
		synctest.Wait()
		requests.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
			defer cancel()
			if n := s.Shutdown(ctx); n != 4 {
				t.Errorf("handed back %d streams, want 4", n)
			}
		})
		person.expect(`{"event":"start","id":"0"}`)
		for _, char := range "hel" {
			person.expect(fmt.Sprintf(`{"data":"from server: server1, data: %c"}`, char))
		}
		person.expect(`{"event":"draining","comment":["server is leaving"]}`)
		person.expectEOF()
		requests.Wait()
	})
}

// A client with an idle connection is told, so that a request on its way counts
// as not taken.
func TestShutdownTellsIdleConnections(t *testing.T) {
	s := echo("server1")
	p := dialPeer(t, serve(t, s))
	p.say(`{"data":"hi"}`)
	p.expect(hi()...)
	done := make(chan int)
	go func() { done <- s.Shutdown(t.Context()) }()
	p.expect(`{"event":"draining","comment":["server is leaving"]}`)
	p.expectEOF()
	p.Close()
	if n := <-done; n != 0 {
		t.Errorf("handed back %d", n)
	}
	if n := s.Shutdown(t.Context()); n != 0 {
		t.Errorf("once more: handed back %d", n)
	}
}

// A client that does not read delays a shutdown by a second, not for ever.
func TestShutdownOfStuckClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stream.Server{Handler: many(1_000_000)}
		l := servePipe(t, s)
		conn, err := l.dial(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		p := newPeer(t, conn)
		p.say(`{"stream":1,"data":"x"}`)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		begin := time.Now()
		if n := s.Shutdown(ctx); n != 1 {
			t.Errorf("handed back %d streams, want 1", n)
		}
		if took := time.Since(begin); took != 11*time.Second {
			t.Errorf("took %v, want 11s", took)
		}
	})
}

func TestCloseCutsOff(t *testing.T) {
	handler, running := held(nil)
	told := make(chan error, 1)
	s := &stream.Server{Handler: func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		err := handler(ctx, req, send)
		told <- context.Cause(ctx)
		return err
	}}
	addr := serve(t, s)
	c := newClient(t, &stream.Client{})
	go func() {
		<-running
		s.Close()
	}()
	_, err := items(t.Context(), c, addr, text("x"))
	if kind := kindOf(err); kind != stream.Truncated && kind != stream.Reset {
		t.Errorf("%v, want truncated or reset", err)
	}
	if err := await(t, told, "the end of the handler"); !errors.Is(err, stream.ErrClosed) {
		t.Errorf("the handler was told %v, want ErrClosed", err)
	}
	if n := s.Streams(); n != 0 {
		t.Errorf("%d streams run", n)
	}
}

// Close ends a waiting Shutdown.
func TestCloseDuringShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler, running := held(nil)
		s := &stream.Server{Handler: handler}
		l := servePipe(t, s)
		c := newClient(t, &stream.Client{Dial: l.dial})
		var both sync.WaitGroup
		both.Go(func() {
			if _, err := items(t.Context(), c, "", text("x")); kindOf(err) != stream.Truncated {
				t.Errorf("%v, want truncated", err)
			}
		})
		<-running
		both.Go(func() { s.Shutdown(t.Context()) })
		synctest.Wait()
		s.Close()
		both.Wait()
	})
}

// Close does not wait for a peer that takes nothing.
func TestCloseDoesNotWaitForThePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stream.Server{Handler: func(_ context.Context, _ *stream.Request, send func(stream.Annotated) error) error {
			for {
				if err := send(stream.Annotated{Data: stream.String("x")}); err != nil {
					return err
				}
			}
		}}
		pipePeer(t, s).say(`{"data":"x"}`)
		synctest.Wait() // the first write is under way, and nobody reads
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			s.Close()
		}()
		began := time.Now()
		await(t, closed, "the server to be closed")
		if took := time.Since(began); took > 0 {
			t.Errorf("it took %v", took)
		}
	})
}

// Shutdown does not wait for a handler that ignores the end of its context. Close does.
func TestShutdownLeavesDeafHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, running := make(chan struct{}), make(chan struct{})
		s := &stream.Server{Handler: func(context.Context, *stream.Request, func(stream.Annotated) error) error {
			close(running)
			<-release
			return nil
		}}
		l := servePipe(t, s)
		c := newClient(t, &stream.Client{Dial: l.dial})
		var request sync.WaitGroup
		request.Go(func() {
			if _, err := items(t.Context(), c, "", text("x")); kindOf(err) != stream.Draining {
				t.Errorf("%v, want draining", err)
			}
		})
		<-running
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		began := time.Now()
		if n := s.Shutdown(ctx); n != 1 {
			t.Errorf("handed back %d streams, want 1", n)
		}
		if took := time.Since(began); took < 10*time.Second || took > 12*time.Second {
			t.Errorf("took %v, want 10s and at most the 2 for the client", took)
		}
		request.Wait()
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			s.Close()
		}()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close did not wait for the handler")
		default:
		}
		close(release)
		await(t, closed, "the end of Close")
	})
}

// A connection that has been idle for a while is closed at once, and the client is told.
func TestShutdownOfIdleConnectionTakesNoTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := echo("server1")
		p := pipePeer(t, s)
		p.say(`{"stream":1,"data":"hi"}`)
		for range 4 {
			p.line()
		}
		time.Sleep(2 * time.Second)
		done := make(chan struct{})
		began := time.Now()
		go func() {
			defer close(done)
			s.Shutdown(t.Context())
		}()
		p.expect(`{"event":"draining","comment":["server is leaving"]}`)
		p.expectEOF()
		await(t, done, "the end of Shutdown")
		if took := time.Since(began); took > 0 {
			t.Errorf("took %v, want no time", took)
		}
	})
}

// A server that never served has nothing to wait for, not even its farewell.
func TestShutdownOfServerThatNeverServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := echo("server1")
		s.Farewell = time.Hour
		began := time.Now()
		if n := s.Shutdown(t.Context()); n != 0 {
			t.Errorf("handed back %d", n)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("took %v, want no time", took)
		}
	})
}

// Close ends a farewell.
func TestCloseDuringFarewell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := echo("server1")
		s.Farewell = time.Hour
		servePipe(t, s)
		done := make(chan struct{})
		began := time.Now()
		go func() {
			defer close(done)
			s.Shutdown(t.Context())
		}()
		synctest.Wait()
		s.Close()
		await(t, done, "the end of Shutdown")
		if took := time.Since(began); took > 0 {
			t.Errorf("took %v, want no time", took)
		}
	})
}
