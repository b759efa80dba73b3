package router

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// follow returns a trace that adds a line for every call to lines.
func follow(lines *[]string) *Trace {
	add := func(format string, args ...any) { *lines = append(*lines, fmt.Sprintf(format, args...)) }
	return &Trace{
		Attempt: func(e AttemptEvent) { add("attempt %d of %s from %d", e.Attempt, e.Request, e.From) },
		Chosen:  func(e ChosenEvent) { add("chosen %s for attempt %d", e.Instance.Name, e.Attempt) },
		Item:    func(i Item) { add("item %d %s of attempt %d at %s", i.Index, i.Data, i.Attempt, i.Peer.Name) },
		Refused: func(e BreakEvent) {
			add("refused %s at %s, attempt %d, reported %v, left %d", e.Kind(), e.Instance.Name, e.Attempt, e.Reported, e.AttemptsLeft)
		},
		Break: func(e BreakEvent) {
			add("break %s at %s, attempt %d, reported %v, left %d", e.Kind(), e.Instance.Name, e.Attempt, e.Reported, e.AttemptsLeft)
		},
		Down: func(d Down) { add("down %s for %v: %v", d.Instance.Name, d.Until.Sub(d.Since), d.Cause) },
		Done: func(e DoneEvent) { add("done: %v", e.Err) },
	}
}

func TestTrace(t *testing.T) {
	for _, tt := range []struct {
		name    string
		servers map[string]server
		want    []string
	}{
		{"success", map[string]server{
			"server1": breaking(stream.Truncated, 1), "server2": breaking(stream.Overloaded, 0), "server3": whole,
		}, []string{
			"attempt 1 of r1 from 0",
			"chosen server1 for attempt 1",
			`item 0 "h" of attempt 1 at server1`,
			"yield 0",
			"break truncated at server1, attempt 1, reported true, left 1",
			"down server1 for 5s: truncated: as told",
			"attempt 2 of r1 from 1",
			"chosen server2 for attempt 2",
			"refused overloaded at server2, attempt 2, reported false, left 1",
			"chosen server3 for attempt 2",
			`item 1 "i" of attempt 2 at server3`,
			"yield 1",
			"done: <nil>",
		}},
		{"attempts used up", map[string]server{
			"server1": breaking(stream.Truncated, 0), "server2": breaking(stream.Failed, 0),
		}, []string{
			"attempt 1 of r1 from 0",
			"chosen server1 for attempt 1",
			"break truncated at server1, attempt 1, reported true, left 1",
			"down server1 for 5s: truncated: as told",
			"attempt 2 of r1 from 0",
			"chosen server2 for attempt 2",
			"break failed at server2, attempt 2, reported true, left 0",
			"down server2 for 5s: failed: as told",
			"done: Failed after 2 attempts: attempt 1 at server1 (1): truncated: as told; attempt 2 at server2 (2): failed: as told",
		}},
		{"application error", map[string]server{"server1": breaking(stream.Application, 0)}, []string{
			"attempt 1 of r1 from 0",
			"chosen server1 for attempt 1",
			"break application at server1, attempt 1, reported false, left 0",
			"done: attempt 1 at server1 (1): application: as told",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, Config{
					Source: newListing(instances(3)...), Client: &servers{by: tt.servers}, Attempts: 2,
				})
				var got []string
				for item, err := range r.Do(t.Context(), Request{ID: "r1", Data: stream.String("hi"), Trace: follow(&got)}) {
					if err == nil {
						got = append(got, fmt.Sprintf("yield %d", item.Index))
					}
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("got:\n%q\nwant:\n%q", got, tt.want)
				}
			})
		})
	}
}

// A kept connection that was replaced is neither an attempt nor a break.
func TestStaleConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{"server1": func(ctx context.Context, req stream.Request, send func(string) bool) error {
			if req.Hooks != nil && req.Hooks.Stale != nil {
				req.Hooks.Stale()
			}
			return whole(ctx, req, send)
		}}}
		r := start(t, Config{Source: newListing(instance(1)), Client: client, Attempts: 1})
		var stale []StaleEvent
		got, err := ask(t.Context(), r, traced(&Trace{
			Stale: func(e StaleEvent) { stale = append(stale, e) },
			Break: func(e BreakEvent) { t.Errorf("break: %+v", e) },
		}))
		if got != "hello" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if !slices.Equal(stale, []StaleEvent{{Attempt: 1, Instance: instance(1)}}) {
			t.Errorf("stale: %+v", stale)
		}
	})
}

// An instance is down for other requests before the trace learns of the break.
func TestReportBeforeTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{"server1": breaking(stream.Failed, 1), "server2": whole}}
		r := start(t, Config{Source: newListing(instances(2)...), Client: client})
		req := traced(&Trace{Break: func(BreakEvent) {
			time.Sleep(time.Second) // somebody prints, on a slow terminal
			if got := names(r.Tiers().Avail); got != "server2" {
				t.Errorf("available during the break: %s", got)
			}
		}})
		if _, err := ask(t.Context(), r, req); err != nil {
			t.Error(err)
		}
	})
}

func TestTraceOfNoInstances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Config{Source: newListing()})
		var got []string
		_, err := ask(t.Context(), r, traced(follow(&got)))
		if want := []string{fmt.Sprintf("done: %v", err)}; err == nil || !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// Traces add up, in order; one that is missing, or lacks a function, changes
// nothing.
func TestTracesAddUp(t *testing.T) {
	var got []string
	note := func(name string) *Trace {
		return &Trace{
			Attempt: func(AttemptEvent) { got = append(got, name+" attempt") },
			Done:    func(DoneEvent) { got = append(got, name+" done") },
		}
	}
	var none *Trace
	trace := none.Then(note("first")).Then(&Trace{Item: func(Item) { got = append(got, "second item") }}).Then(none).Then(note("third"))
	trace.Attempt(AttemptEvent{})
	trace.Item(Item{})
	trace.Done(DoneEvent{})
	want := []string{"first attempt", "third attempt", "second item", "first done", "third done"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if trace.Chosen != nil || trace.Refused != nil || trace.Break != nil || trace.Down != nil {
		t.Error("a function that nobody gave")
	}
	if none.Then(none) != nil {
		t.Error("a trace from nowhere")
	}
}

// The trace of the router comes before the request's own.
func TestTraceOfRouterAndRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		note := func(name string) *Trace {
			return &Trace{Done: func(DoneEvent) { got = append(got, name) }}
		}
		r := start(t, Config{
			Source: newListing(instance(1)), Client: &servers{by: map[string]server{"server1": whole}},
			Trace: func() *Trace { return note("router") },
		})
		for _, req := range []Request{hello(), traced(note("request"))} {
			if _, err := ask(t.Context(), r, req); err != nil {
				t.Error(err)
			}
		}
		if want := []string{"router", "router", "request"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
