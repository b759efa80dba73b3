package router

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// causeOnly is a server whose client gives no more than the context's cause.
func causeOnly(ctx context.Context, _ stream.Request, _ func(string) bool) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// A request that its caller ends is nobody's fault.
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
				r := start(t, Config{Source: newListing(instances(3)...).watch, Client: client})
				ctx, cancel := tt.end(t.Context())
				defer cancel()
				rec := &Recorder{}
				begin := time.Now()
				_, err := ask(WithTrace(ctx, rec.Trace()), r, hello())
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
				if got := rec.Receipt(); got.Outcome != Cancelled || got.Attempts[1].Kind != "" {
					t.Errorf("receipt: %+v", got)
				}
			})
		})
	}
}

// To be cancelled ends every wait, and a cause is told.
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
				tt.cfg.Source = l.watch
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

// To leave the loop cancels the stream, blames nobody and ends the request.
func TestLeavingEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := false
		client := &servers{by: map[string]server{"server1": func(ctx context.Context, req stream.Request, send func(string) bool) error {
			defer func() { ended = true }()
			return whole(ctx, req, send)
		}}}
		r := start(t, Config{Source: newListing(instances(2)...).watch, Client: client})
		ctx := WithTrace(t.Context(), &Trace{
			Break: func(e BreakEvent) { t.Errorf("break: %+v", e) },
			Done:  func(e DoneEvent) { t.Errorf("done: %+v", e) },
		})
		var p *Peer
		n := 0
		for item, err := range r.Do(ctx, hello()) {
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
		wantAvail(t, r, "server1 server2")
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
				r := start(t, Config{Source: l.watch, Wait: time.Minute, WaitRestore: time.Minute})
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

// Streams are their callers': they outlive the router.
func TestCloseLetsStreamsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{"server1": after(time.Second, breaking(stream.Failed, 2)), "server2": whole}}
		r := start(t, Config{Source: newListing(instances(2)...).watch, Client: client})
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
