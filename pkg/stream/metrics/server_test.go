package metrics_test

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/fault"
	"github.com/request-migration/migrate/pkg/stream/metrics"
)

func TestOutcomes(t *testing.T) {
	t.Parallel()
	injected := func(k fault.Kind) stream.Handler {
		return fault.Inject(stream.Echo("s", 0), fault.Fault{Mode: fault.Always, Kind: k, After: 2}).Handle
	}
	for _, tt := range []struct {
		name, outcome string
		handler       stream.Handler
		leaveAfter    int
		items         int // -1: not told
	}{
		{"completed", "completed", stream.Echo("s", 0), 0, 5},
		{"error line", "failed", injected(fault.Error), 0, 2},
		{"close", "failed", injected(fault.Close), 0, 2},
		{"garbage", "failed", injected(fault.Garbage), 0, 2},
		{"bad count", "failed", injected(fault.BadCount), 0, 5},
		{"its own error", "application", func(context.Context, *stream.Request, func(stream.Annotated) error) error {
			return errors.New("no such model")
		}, 0, 0},
		{"no item", "application", func(_ context.Context, _ *stream.Request, send func(stream.Annotated) error) error {
			return send(stream.Annotated{Event: "end"})
		}, 0, 0},
		{"hands itself back", "handed_back", func(context.Context, *stream.Request, func(stream.Annotated) error) error {
			return stream.ErrDraining
		}, 0, 0},
		{"refuses", "refused", func(context.Context, *stream.Request, func(stream.Annotated) error) error {
			return stream.OverloadedFor(time.Second)
		}, 0, 0},
		{"cannot resume", "refused", func(context.Context, *stream.Request, func(stream.Annotated) error) error {
			return stream.ErrUnresumable
		}, 0, 0},
		{"refuses too late", "failed", func(_ context.Context, _ *stream.Request, send func(stream.Annotated) error) error {
			if err := send(stream.Annotated{Data: stream.String("x")}); err != nil {
				return err
			}
			return stream.ErrOverloaded
		}, 0, 1},
		{"panics", "application", func(context.Context, *stream.Request, func(stream.Annotated) error) error { panic("x") }, 0, 0},
		{"exits", "application", func(context.Context, *stream.Request, func(stream.Annotated) error) error {
			runtime.Goexit()
			return nil
		}, 0, 0},
		{"client leaves who sends", "cancelled", endless, 1, -1},
		{"client leaves who waits", "cancelled", patient, 1, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := serve(t, &stream.Server{Handler: tt.handler})
			_ = c.ask(t.Context(), text("hello"), tt.leaveAfter) // what the server sees is what counts
			c.client.Close()
			c.server.Shutdown(t.Context()) // waits for the handler
			want := map[string]float64{"streams_total " + tt.outcome: 1}
			if tt.items > 0 {
				want["items_total"] = float64(tt.items)
			}
			got := gathered(t, c.m)
			delete(got, "first_item_seconds")
			if tt.items < 0 {
				delete(got, "items_total")
			}
			if !maps.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestServerLeaves(t *testing.T) {
	t.Parallel()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		outcome string
		leave   func(*stream.Server)
	}{
		{"handed_back", func(s *stream.Server) { s.Shutdown(over) }},
		{"cancelled", (*stream.Server).Close},
	} {
		for name, handler := range map[string]stream.Handler{"sends": endless, "waits": patient} {
			t.Run(tt.outcome+" who "+name, func(t *testing.T) {
				t.Parallel()
				c := serve(t, &stream.Server{Handler: handler})
				left := false
				for _, err := range c.client.Stream(t.Context(), c.addr, text("hello")) {
					if err == nil && !left {
						tt.leave(c.server)
						left = true
					}
				}
				if got := gathered(t, c.m); got["streams_total "+tt.outcome] != 1 || got["items_total"] < 1 {
					t.Errorf("got %v", got)
				}
			})
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	running := make(chan struct{})
	faulty := fault.Inject(nil, fault.Fault{Mode: fault.Always, Kind: fault.Refuse})
	c := serve(t, &stream.Server{
		MaxStreams: 1,
		Admit: func(req stream.Request) error {
			switch s, _ := req.Text(); s {
			case "too much":
				return stream.ErrOverloaded
			case "bad":
				return errors.New("bad")
			}
			return nil
		},
		Handler: func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
			if s, _ := req.Text(); s == "wait" {
				close(running)
				<-ctx.Done()
			}
			return nil
		},
	})
	c.server.SetNames("a/b/c/1")
	for _, req := range []stream.Request{
		text("too much"), text("bad"), {Data: stream.String("late"), From: 3}, {Data: stream.String("lost"), To: "a/b/c/2"},
	} {
		if c.ask(t.Context(), req, 0) == nil {
			t.Errorf("%s was taken", req.Data)
		}
	}
	c.m.Refused(text("hello"), faulty.Admit(text("hello")))
	check(t, c.m, map[string]float64{"refusals_total overloaded": 1, "refusals_total application": 1, "refusals_total failed": 1,
		"refusals_total unresumable": 1, "refusals_total misdirected": 1})

	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asking.Go(func() { _ = c.ask(ctx, text("wait"), 0) }) // until it is cancelled
	<-running
	if err := c.ask(t.Context(), text("more"), 0); !errors.Is(err, stream.Overloaded) {
		t.Errorf("the second of one stream: %v", err)
	}
	var shutdown sync.WaitGroup
	shutdown.Go(func() { c.server.Shutdown(context.Background()) })
	for errors.Is(c.ask(t.Context(), text("more"), 0), stream.Overloaded) {
		continue // until Shutdown has begun
	}
	cancel()
	asking.Wait()
	shutdown.Wait()
	got := gathered(t, c.m)
	if got["streams_total cancelled"] != 1 || got["refusals_total draining"] != 1 || got["refusals_total overloaded"] < 2 {
		t.Errorf("got %v", got)
	}
}

func TestFirstItem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := metrics.New("demo/text/upper", "server1")
		handler := m.Handler(func(_ context.Context, _ *stream.Request, send func(stream.Annotated) error) error {
			time.Sleep(2 * time.Second)
			_ = send(stream.Annotated{})
			time.Sleep(time.Hour)
			return send(stream.Annotated{})
		})
		slow := func(stream.Annotated) error { time.Sleep(time.Minute); return nil } // the client is
		if err := handler(t.Context(), &stream.Request{}, slow); err != nil {
			t.Fatal(err)
		}
		check(t, m, map[string]float64{"streams_total completed": 1, "items_total": 2})
		if got := gathered(t, m)["first_item_seconds"]; got != 2 {
			t.Errorf("the first item took %v s", got)
		}
	})
}
