package router

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// crowd is n servers that are all overloaded.
func crowd(n int) *servers {
	client := &servers{by: make(map[string]server)}
	for _, i := range instances(n) {
		client.by[i.Address] = breaking(stream.Overloaded, 0)
	}
	return client
}

// A request does not ask every instance of an overloaded fleet.
func TestRefusalsAreBounded(t *testing.T) {
	for _, attempts := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			client := crowd(50)
			r := start(t, Config{Source: newListing(instances(50)...), Client: client, Attempts: attempts, WaitRestore: time.Hour})
			wantEnd(t, r, hello(), "all instances are overloaded (the first backoff ends in 1s)", 0)
			if n := len(client.calls); n != 2*attempts {
				t.Errorf("asked %d of 50, want %d", n, 2*attempts)
			}
		})
	}
}

// After an item the count of refusals begins anew.
func TestItemStartsRefusalsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := crowd(4)
		r := start(t, Config{Source: newListing(instances(4)...), Client: client, Attempts: 1})
		if got, err := ask(t.Context(), r, hello()); err == nil {
			t.Errorf("two have refused, and it went on: %q", got)
		}
		client.by["server2"] = breaking(stream.Draining, 1)
		client.by["server4"] = whole
		sleep(time.Second)
		if got, err := ask(t.Context(), r, hello()); got != "h|ello" || err != nil {
			t.Errorf("one before an item and one after it refused: %q, %v", got, err)
		}
		if got := client.asked(); got != "server1 server2 server1 server2 server3 server4" {
			t.Errorf("asked %s", got)
		}
	})
}

// An instance that refused as overloaded backs off for as long as it said, or a
// second: requests pass over it while another instance is left. A request asks at
// most one instance that backs off.
func TestBackoff(t *testing.T) {
	for _, tt := range []struct{ asks, spared time.Duration }{
		{0, time.Second}, {300 * time.Millisecond, 300 * time.Millisecond}, {time.Hour, 30 * time.Second},
	} {
		t.Run(fmt.Sprint(tt.asks), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := &servers{by: map[string]server{"server1": refusing(tt.asks), "server2": whole}}
				r := start(t, Config{Source: newListing(instances(2)...), Client: client})
				for range 3 {
					if _, err := ask(t.Context(), r, hello()); err != nil {
						t.Error(err)
					}
					sleep(tt.spared/2 - justBefore)
				}
				if _, err := ask(t.Context(), r, hello()); err != nil {
					t.Error(err)
				}
				wantAvail(t, r, "server1 server2")
				if got := client.asked(); got != "server1 server2 server2 server2 server1 server2" {
					t.Errorf("asked %s", got)
				}
			})
		})
	}
}

func TestOneThatBacksOffAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := crowd(3)
		r := start(t, Config{Source: newListing(instances(3)...), Client: client, Attempts: 2})
		wantEnd(t, r, hello(), "all instances are overloaded (the first backoff ends in 1s)", 0)
		if got := client.asked(); got != "server1 server2 server3" {
			t.Errorf("asked %s", got)
		}
		client.calls = nil
		wantEnd(t, r, hello(), "all instances are overloaded (the first backoff ends in 1s)", 0)
		if got := client.asked(); got != "server1" {
			t.Errorf("while all back off: asked %s", got)
		}
		client.by["server1"] = whole
		client.calls = nil
		wantEnd(t, r, hello(), "", 0) // it may well have room again
	})
}

// A request waits for an instance that is down, but not for those that refused it.
func TestWaitRestoreWhenOverloaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := crowd(2)
		r := start(t, Config{Source: newListing(instances(2)...), Client: client, WaitRestore: time.Hour})
		wantEnd(t, r, hello(), "all instances are overloaded (the first backoff ends in 1s)", 0)
		r.ReportDown(1, stream.Failed)
		client.by["server1"] = whole
		sleep(2 * time.Second)
		wantEnd(t, r, hello(), "", 3*time.Second)
	})
}

// A stream that breaks because this process was paused is retried, also at the same
// instance, is not reported, and does not count; but not for ever.
func TestPaused(t *testing.T) {
	calls := 0
	paused := func(context.Context, stream.Request, func(string) bool) error {
		if calls++; calls > 100 {
			return errBoom // enough is enough
		}
		return &stream.Break{Kind: stream.Stalled, Paused: true, NoReport: true, Reason: "as told"}
	}
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{"server1": paused}}
		r := start(t, Config{Source: newListing(instance(1)), Client: client, Attempts: 2})
		req := traced(&Trace{Break: func(e BreakEvent) {
			client.by["server1"] = whole
			if e.Reported {
				t.Errorf("%+v", e)
			}
		}})
		if got, err := ask(t.Context(), r, req); got != "|hello" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		wantAvail(t, r, "server1")
		client.by["server1"], client.calls = paused, nil
		if _, err := ask(t.Context(), r, hello()); !errors.Is(err, ErrAttemptsUsedUp) {
			t.Errorf("ended with %v", err)
		}
		if n := len(client.calls); n != 4 {
			t.Errorf("opened %d streams, want as many as attempts and as many again", n)
		}
		wantAvail(t, r, "server1")
	})
}

// A request may set its own limit of attempts.
func TestOwnAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{}}
		r := start(t, Config{Source: newListing(instances(5)...), Client: client})
		req := hello()
		req.Attempts = 4
		_, err := ask(t.Context(), r, req)
		if !errors.Is(err, ErrAttemptsUsedUp) || len(client.calls) != 4 {
			t.Errorf("after %d: %v", len(client.calls), err)
		}
	})
}
