package router

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// An instance that refuses is not reported, and the attempt goes on elsewhere.
func TestRefusalsStayWithinTheAttempt(t *testing.T) {
	for _, kind := range []stream.Kind{stream.Overloaded, stream.Draining} {
		synctest.Test(t, func(t *testing.T) {
			client := &servers{by: map[string]server{
				"server1": breaking(kind, 0), "server2": breaking(kind, 0), "server3": breaking(kind, 0), "server4": whole,
			}}
			r := start(t, Config{Source: newListing(instances(4)...), Client: client, Attempts: 2})
			var refused []BreakEvent
			got, err := ask(t.Context(), r, traced(&Trace{
				Refused: func(e BreakEvent) { refused = append(refused, e) },
				Break:   func(e BreakEvent) { t.Errorf("break: %+v", e) },
			}))
			if got != "hello" || err != nil {
				t.Errorf("%s: %q, %v", kind, got, err)
			}
			if got := client.asked(); got != "server1 server2 server3 server4" {
				t.Errorf("asked %s", got)
			}
			wantAvail(t, r, "server1 server2 server3 server4")
			if len(refused) != 3 {
				t.Errorf("%s: refused %d times", kind, len(refused))
			}
			for _, e := range refused {
				if e.Attempt != 1 || e.Reported || e.Kind() != kind {
					t.Errorf("%s: %+v", kind, e)
				}
			}
		})
	}
}

func TestAllOverloaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{
			"server1": refusing(2500 * time.Millisecond), "server2": breaking(stream.Overloaded, 0),
		}}
		l := newListing(instances(2)...)
		r := start(t, Config{Source: l, Client: client})
		_, err := ask(t.Context(), r, hello())
		if !errors.Is(err, ErrOverloaded) || errors.Is(err, ErrNoInstances) || err.Error() != "all instances are overloaded (the first backoff ends in 1s)" {
			t.Errorf("ended with %v", err)
		}
		wantAvail(t, r, "server1 server2")

		// With others among those that were asked, these are told of too.
		sleep(3 * time.Second)
		client.by["server1"], client.by["server3"] = breaking(stream.Failed, 0), breaking(stream.Draining, 0)
		l.list(instances(3)...)
		synctest.Wait()
		_, err = ask(t.Context(), r, hello())
		const want = "instances of endpoint dynamo/backend/generate are overloaded, and no other is left (3 in source, 1 down, the next returns in 5s, " +
			"1 refused as draining, 1 refused as overloaded, the first backoff ends in 1s): attempt 1 at server1 (1): failed: as told"
		if !errors.Is(err, ErrOverloaded) || !errors.Is(err, stream.Failed) || !errors.Is(err, stream.Draining) || err.Error() != want {
			t.Errorf("after a break: %v, want %s", err, want)
		}
		// Nobody has refused this request, of which one is down, one leaves, and
		// one breaks it that backs off.
		client.by["server2"] = breaking(stream.Failed, 0)
		_, err = ask(t.Context(), r, hello())
		if !errors.Is(err, ErrNoInstances) || errors.Is(err, ErrOverloaded) {
			t.Errorf("with nobody that refused as overloaded: %v", err)
		}
	})
}

// refusing is an overloaded server that says when to come again.
func refusing(again time.Duration) server {
	return func(context.Context, stream.Request, func(string) bool) error {
		return &stream.Break{Kind: stream.Overloaded, Reason: "as told", RetryAfter: again}
	}
}

func TestAllDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{"server1": breaking(stream.Draining, 0)}}
		r := start(t, Config{Source: newListing(instance(1)), Client: client})
		_, err := ask(t.Context(), r, hello())
		const want = "no instances found for endpoint dynamo/backend/generate (1 in source, 1 refused as draining)"
		if !errors.Is(err, ErrNoInstances) || !errors.Is(err, stream.Draining) || err.Error() != want {
			t.Errorf("ended with %v, want %s", err, want)
		}
	})
}

// A stream that was handed back midway is a break, but does not count as an attempt.
func TestDrainingMidway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{
			"server1": breaking(stream.Draining, 1), "server2": breaking(stream.Draining, 2), "server3": breaking(stream.Failed, 3), "server4": whole,
		}}
		r := start(t, Config{Source: newListing(instances(4)...), Client: client, Attempts: 2})
		var breaks []BreakEvent
		req := traced(&Trace{
			Break:   func(e BreakEvent) { breaks = append(breaks, e) },
			Refused: func(e BreakEvent) { t.Errorf("%+v shows as a refusal", e) },
		})
		got, err := ask(t.Context(), r, req)
		if got != "h|e|l|lo" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if len(breaks) != 3 || breaks[0].Kind() != stream.Draining || breaks[0].Reported || breaks[0].AttemptsLeft == 0 || !breaks[2].Reported {
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
