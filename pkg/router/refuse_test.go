package router

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/request-migration/migrate/pkg/stream"
)

// Who refuses is not blamed, and the attempt goes on elsewhere.
func TestRefusalsStayWithinTheAttempt(t *testing.T) {
	for _, kind := range []stream.Kind{stream.Overloaded, stream.Draining} {
		synctest.Test(t, func(t *testing.T) {
			client := &servers{by: map[string]server{
				"server1": breaking(kind, 0), "server2": breaking(kind, 0), "server3": breaking(kind, 0), "server4": whole,
			}}
			r := start(t, Config{Source: newListing(instances(4)...).watch, Client: client, Attempts: 1})
			rec := &Recorder{}
			got, err := ask(WithTrace(t.Context(), rec.Trace()), r, hello())
			if got != "hello" || err != nil {
				t.Errorf("%s: %q, %v", kind, got, err)
			}
			if got := client.asked(); got != "server1 server2 server3 server4" {
				t.Errorf("asked %s", got)
			}
			wantAvail(t, r, "server1 server2 server3 server4")
			for _, a := range rec.Receipt().Attempts {
				if a.Attempt != 1 || a.Blamed {
					t.Errorf("%s: %+v", kind, a)
				}
			}
		})
	}
}

func TestAllOverloaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{
			"server1": breaking(stream.Overloaded, 0), "server2": breaking(stream.Overloaded, 0), "server3": breaking(stream.Draining, 0),
		}}
		r := start(t, Config{Source: newListing(instances(3)...).watch, Client: client})
		_, err := ask(t.Context(), r, hello())
		if !errors.Is(err, ErrOverloaded) || errors.Is(err, ErrNoInstances) || err.Error() != "all instances are overloaded" {
			t.Errorf("ended with %v", err)
		}
		wantAvail(t, r, "server1 server2 server3")

		client.by["server1"] = breaking(stream.Failed, 1)
		_, err = ask(t.Context(), r, hello())
		const want = "all instances are overloaded: attempt 1 at server1 (1): failed: as told"
		if !errors.Is(err, ErrOverloaded) || !errors.Is(err, stream.Failed) || err.Error() != want {
			t.Errorf("after a break: %v, want %s", err, want)
		}
	})
}

func TestAllDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{"server1": breaking(stream.Draining, 0)}}
		r := start(t, Config{Source: newListing(instance(1)).watch, Client: client})
		_, err := ask(t.Context(), r, hello())
		const want = "no instances found for endpoint dynamo/backend/generate (1 in source, 1 tried already)"
		if !errors.Is(err, ErrNoInstances) || err.Error() != want {
			t.Errorf("ended with %v, want %s", err, want)
		}
	})
}

// A stream that was handed back midway is a break to see, but costs no attempt.
func TestDrainingMidway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{
			"server1": breaking(stream.Draining, 1), "server2": breaking(stream.Draining, 2), "server3": breaking(stream.Failed, 3), "server4": whole,
		}}
		r := start(t, Config{Source: newListing(instances(4)...).watch, Client: client, Attempts: 2, Resume: true})
		var breaks []BreakEvent
		ctx := WithTrace(t.Context(), &Trace{
			Break:   func(e BreakEvent) { breaks = append(breaks, e) },
			Refused: func(e BreakEvent) { t.Errorf("%+v shows as a refusal", e) },
		})
		got, err := ask(ctx, r, hello())
		if got != "h|e|l|lo" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if len(breaks) != 3 || breaks[0].Kind() != stream.Draining || breaks[0].Reported || !breaks[0].Retry || !breaks[2].Reported {
			t.Errorf("breaks: %+v", breaks)
		}
		wantAvail(t, r, "server1 server2 server4")

		client.by["server4"] = breaking(stream.Failed, 4) // and server3 is down
		_, err = ask(t.Context(), r, hello())
		if !errors.Is(err, ErrNoInstances) || !errors.Is(err, stream.Draining) || errors.Is(err, ErrAttemptsUsedUp) {
			t.Errorf("with one attempt left and nobody for it: %v", err)
		}
	})
}
