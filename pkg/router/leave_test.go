package router

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// causeOnly is a server whose client returns the context's cause alone.
func causeOnly(ctx context.Context, _ stream.Request, _ func(string) bool) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// A request that its caller ends is no break, and nobody is reported for it.
func TestCancelled(t *testing.T) {
	slow := after(time.Hour, whole)
	for name, tt := range map[string]struct {
		serve server
		end   func(context.Context) (context.Context, context.CancelFunc)
		is    []error
	}{
		"deadline": {slow, func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		}, []error{context.DeadlineExceeded}},
		"cancelled": {slow, func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		}, []error{context.Canceled}},
		"with a cause": {causeOnly, func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeoutCause(ctx, time.Second, errBoom)
		}, []error{context.DeadlineExceeded, errBoom}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := &servers{by: map[string]server{"server1": breaking(stream.Failed, 1), "server2": tt.serve}}
				r := start(t, Config{Source: newListing(instances(3)...), Client: client})
				ctx, cancel := tt.end(t.Context())
				defer cancel()
				var broke []string
				begin := time.Now()
				_, err := ask(ctx, r, traced(&Trace{Break: func(e BreakEvent) { broke = append(broke, e.Instance.Name) }}))
				for _, target := range tt.is {
					if !errors.Is(err, target) {
						t.Errorf("ended with %v, want %v", err, target)
					}
				}
				if d := time.Since(begin); d != time.Second {
					t.Errorf("it took %v", d)
				}
				if got := client.asked(); got != "server1 server2" {
					t.Errorf("asked %s", got)
				}
				wantAvail(t, r, "server2 server3")
				if !slices.Equal(broke, []string{"server1"}) {
					t.Errorf("streams broke at %q", broke)
				}
			})
		})
	}
}

// Cancelling ends every wait, and the error says the cause.
func TestCancelledWhileWaiting(t *testing.T) {
	for name, tt := range map[string]struct {
		cfg  Config
		list func(*listing)
	}{
		"for the source":     {Config{Wait: time.Minute}, func(l *listing) { l.change(nil, nil) }},
		"for an instance":    {Config{Wait: time.Minute}, func(l *listing) { l.list() }},
		"for one to restore": {Config{WaitRestore: time.Minute}, func(l *listing) { l.list(instance(1)) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newListing()
				tt.list(l)
				tt.cfg.Source = l
				r := start(t, tt.cfg)
				sleep(time.Millisecond)
				r.ReportDown(1, stream.Failed)
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errBoom)
				defer cancel()
				begin := time.Now()
				_, err := ask(ctx, r, hello())
				if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errBoom) || time.Since(begin) != time.Second {
					t.Errorf("after %v: %v", time.Since(begin), err)
				}
				r.Close()
				if _, err := ask(t.Context(), r, hello()); !errors.Is(err, ErrClosed) {
					t.Errorf("of a closed router: %v", err)
				}
			})
		})
	}
}

// Leaving the loop cancels the stream and ends the request, and nobody is reported.
func TestLeavingEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := false
		client := &servers{by: map[string]server{"server1": func(ctx context.Context, req stream.Request, send func(string) bool) error {
			defer func() { ended = true }()
			return whole(ctx, req, send)
		}}}
		r := start(t, Config{Source: newListing(instances(2)...), Client: client})
		var done []error
		req := traced(&Trace{
			Break: func(e BreakEvent) { t.Errorf("break: %+v", e) },
			Done:  func(e DoneEvent) { done = append(done, e.Err) },
		})
		var p *Peer
		n := 0
		for item, err := range r.Do(t.Context(), req) {
			if err != nil {
				t.Fatal(err)
			}
			p = item.Peer
			if n++; n == 2 {
				break
			}
		}
		if !ended || n != 2 || p.Streams() != 0 || client.asked() != "server1" {
			t.Errorf("ended: %v, items: %d, streams: %d, asked %s", ended, n, p.Streams(), client.asked())
		}
		if len(done) != 1 || !errors.Is(done[0], ErrLeft) {
			t.Errorf("done: %v, want once, with ErrLeft", done)
		}
		wantAvail(t, r, "server1 server2")
	})
}

// A loop that panics gives back what its request has taken, and ends it.
func TestLoopPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{"server1": whole}}
		r := start(t, Config{Source: newListing(instance(1)), Client: client})
		sleep(time.Millisecond)
		p := r.Tiers().Source[0]
		p.opens()
		var done []error
		func() {
			defer func() { _ = recover() }()
			for _, err := range r.Do(t.Context(), traced(&Trace{
				Item: func(Item) { panic("boom") },
				Done: func(e DoneEvent) { done = append(done, e.Err) },
			})) {
				t.Error("an item, or an error:", err)
			}
		}()
		if len(done) != 1 || !errors.Is(done[0], ErrLeft) || p.Streams() != 0 || p.halfState() == onTrial {
			t.Errorf("done: %v, streams: %d, half-open: %d", done, p.Streams(), p.halfState())
		}
	})
}

func TestCloseEndsWaits(t *testing.T) {
	for name, down := range map[string]bool{"for an instance": false, "for one to restore": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newListing()
				if down {
					l.list(instance(1))
				}
				r := start(t, Config{Source: l, Wait: time.Minute, WaitRestore: time.Minute})
				sleep(time.Millisecond)
				r.ReportDown(1, stream.Failed)
				done := make(chan error, 1)
				go func() {
					_, err := ask(t.Context(), r, hello())
					done <- err
				}()
				sleep(time.Second)
				begin := time.Now()
				r.Close()
				r.Close()
				if err := <-done; !errors.Is(err, ErrClosed) || time.Since(begin) != 0 {
					t.Errorf("after %v: %v", time.Since(begin), err)
				}
			})
		})
	}
}

// Streams outlive the router, as they belong to their callers.
func TestCloseLetsStreamsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{"server1": after(time.Second, breaking(stream.Failed, 2)), "server2": whole}}
		r := start(t, Config{Source: newListing(instances(2)...), Client: client})
		done := make(chan string, 1)
		go func() {
			got, err := ask(t.Context(), r, hello())
			if err != nil {
				t.Error(err)
			}
			done <- got
		}()
		sleep(time.Millisecond)
		r.Close()
		if got := <-done; got != "he|llo" {
			t.Errorf("got %q", got)
		}
		if _, err := ask(t.Context(), r, hello()); !errors.Is(err, ErrClosed) {
			t.Errorf("afterwards: %v", err)
		}
	})
}
