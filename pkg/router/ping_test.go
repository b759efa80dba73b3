package router

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// A ping comes whenever nothing has come for its time, and no goroutine stays.
func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{
			"server1": after(35*time.Second, breaking(stream.Reset, 2)), "server2": after(15*time.Second, whole),
		}}
		r := start(t, Config{Source: newListing(instances(2)...), Client: client})
		var done []error
		inLoop := false
		req := traced(&Trace{
			Break: func(BreakEvent) {
				if inLoop {
					t.Error("a trace's function while the loop's body runs")
				}
			},
			Done: func(e DoneEvent) { done = append(done, e.Err) },
		})
		req.Ping = 10 * time.Second
		var got []string
		begin := time.Now()
		for item, err := range r.Do(t.Context(), req) {
			inLoop = true
			if err != nil {
				t.Fatal(err)
			}
			text, _ := item.Text()
			if item.IsPing() {
				text = fmt.Sprintf("ping before %d", item.Index)
				time.Sleep(6 * time.Second) // the break comes meanwhile
			}
			got = append(got, fmt.Sprintf("%v %s", time.Since(begin), text))
			inLoop = false
		}
		want := "16s ping before 0, 32s ping before 0, 35s h, 35s e, 51s ping before 2, 51s l, 51s l, 51s o"
		if got := strings.Join(got, ", "); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if len(done) != 1 || done[0] != nil {
			t.Errorf("done: %v", done)
		}
	})
}

// A caller that leaves at a ping or at an item, or whose context ends, leaves nothing
// behind: the bubble ends only when every goroutine has.
func TestPingLeave(t *testing.T) {
	for name, serve := range map[string]server{"at a ping": after(time.Hour, whole), "at an item": whole} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, Config{Source: newListing(instance(1)), Client: &servers{by: map[string]server{"server1": serve}}})
				var done []error
				req := traced(&Trace{Done: func(e DoneEvent) { done = append(done, e.Err) }})
				req.Ping = time.Second
				for item, err := range r.Do(t.Context(), req) {
					if err != nil || item.IsPing() != (name == "at a ping") {
						t.Errorf("item %+v, %v", item, err)
					}
					break
				}
				if len(done) != 1 || !errors.Is(done[0], ErrLeft) || r.Tiers().Source[0].Streams() != 0 {
					t.Errorf("done: %v", done)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
				defer cancel()
				if _, err := ask(ctx, r, req); name == "at a ping" && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("the caller's deadline: %v", err)
				}
			})
		})
	}
}

// A panic in a trace is the caller's.
func TestPingPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Config{Source: newListing(instance(1)), Client: &servers{by: map[string]server{"server1": whole}}})
		req := traced(&Trace{Item: func(Item) { panic("boom") }})
		req.Ping = time.Second
		defer func() {
			if v := recover(); v != "boom" {
				t.Errorf("recovered %v", v)
			}
		}()
		for _, err := range r.Do(t.Context(), req) {
			t.Error("an item, or an error:", err)
		}
	})
}
