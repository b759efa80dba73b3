package router

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// With Restart each attempt begins at the first item, else where the one before
// broke.
func TestRestartAndResume(t *testing.T) {
	for _, tt := range []struct {
		first, second int // where server1 and server2 break
		resume        bool
		want          string
	}{
		{2, 4, false, "he|hell|hello"},
		{2, 4, true, "he|ll|o"},
		{0, 0, false, "||hello"},
		{0, 0, true, "||hello"},
		{5, 5, false, "hello|hello|hello"}, // only the end was lost
		{5, 5, true, "hello||"},
	} {
		t.Run(fmt.Sprintf("%d,%d,%v", tt.first, tt.second, tt.resume), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := &servers{by: map[string]server{
					"server1": breaking(stream.Truncated, tt.first),
					"server2": breaking(stream.Failed, tt.second),
					"server3": whole,
				}}
				r := start(t, Config{Source: newListing(instances(3)...), Client: client, Restart: !tt.resume})
				got, err := ask(t.Context(), r, hello())
				for strings.Count(got, "|") < 2 && err == nil {
					got += "|" // attempts without items
				}
				if got != tt.want || err != nil {
					t.Errorf("got %q, %v, want %q", got, err, tt.want)
				}
				if got := client.asked(); got != "server1 server2 server3" {
					t.Errorf("asked %s", got)
				}
				wantAvail(t, r, "server3")
			})
		})
	}
}

func TestItems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{"server1": breaking(stream.Truncated, 2), "server2": whole}}
		r := start(t, Config{Source: newListing(instances(2)...), Client: client})
		index := 0
		for item, err := range r.Do(t.Context(), hello()) {
			if err != nil {
				t.Fatal(err)
			}
			attempt := 1
			if index >= 2 {
				attempt = 2
			}
			if item.Index != index || item.Attempt != attempt || *item.Peer.Instance != instance(attempt) || item.Peer.Streams() != 1 {
				t.Errorf("item %d: %d of attempt %d at %s, which has %d streams",
					index, item.Index, item.Attempt, item.Peer.Name, item.Peer.Streams())
			}
			index++
		}
		for _, p := range r.Tiers().Source {
			if p.Streams() != 0 {
				t.Errorf("%s has %d streams afterwards", p.Name, p.Streams())
			}
		}
	})
}

func TestAttemptsUsedUp(t *testing.T) {
	kinds := []stream.Kind{stream.Truncated, stream.Stalled, stream.Failed, stream.Protocol}
	for _, attempts := range []int{0, 1, 2, 4} {
		synctest.Test(t, func(t *testing.T) {
			client := &servers{by: make(map[string]server)}
			for i, kind := range kinds {
				client.by[instance(i+1).Address] = breaking(kind, 1)
			}
			r := start(t, Config{Source: newListing(instances(4)...), Client: client, Attempts: attempts})
			begin := time.Now()
			_, err := ask(t.Context(), r, hello())
			if d := time.Since(begin); d != 0 {
				t.Errorf("it took %v: retries are immediate", d)
			}
			n := attempts
			if n == 0 {
				n = DefaultAttempts
			}
			if !errors.Is(err, ErrAttemptsUsedUp) || errors.Is(err, ErrNoInstances) {
				t.Errorf("ended with %v", err)
			}
			want := fmt.Sprintf("Failed after %d attempts", n)
			for i, kind := range kinds {
				if got := errors.Is(err, kind); got != (i < n) {
					t.Errorf("%d attempts: errors.Is(err, %s) is %v", n, kind, got)
				}
				if i < n {
					want += fmt.Sprintf("%c attempt %d at server%d (%x): %s: as told", ":;;;"[i], i+1, i+1, i+1, kind)
				}
			}
			if err.Error() != want {
				t.Errorf("%q, want %q", err, want)
			}
			all, ok := errors.AsType[*AttemptsError](err)
			if !ok || len(all.Attempts) != n {
				t.Fatalf("%#v", err)
			}
			last, ok := errors.AsType[*AttemptError](all.Attempts[n-1])
			if !ok || last.Attempt != n || last.Instance != instance(n) || kindOf(last) != kinds[n-1] {
				t.Errorf("last attempt: %+v", last)
			}
		})
	}
}

// A request never goes to an instance twice, even if its cooldown has passed, it has
// left and come back, or its record has changed.
func TestNeverTwice(t *testing.T) {
	for name, between := range map[string]func(*listing){
		"cooldown passed": func(*listing) {},
		"came back":       func(l *listing) { l.list(instance(2)); sleep(1); l.list(instances(2)...) },
		"moved":           func(l *listing) { l.list(moved(), instance(2)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newListing(instances(2)...)
				client := &servers{by: map[string]server{
					"server1": breaking(stream.Truncated, 1),
					"server2": after(time.Minute, breaking(stream.Truncated, 2)),
				}}
				r := start(t, Config{Source: l, Client: client})
				var err error
				done := make(chan struct{})
				go func() {
					defer close(done)
					_, err = ask(t.Context(), r, hello())
				}()
				sleep(time.Second)
				between(l)
				<-done
				if n := len(r.Tiers().Avail); n != 1 {
					t.Errorf("%d are available, want the first, which is back", n)
				}
				none, ok := errors.AsType[*NoInstancesError](err)
				if !ok || none.Source != 2 || none.Down != 1 || none.Tried != 1 {
					t.Errorf("ended with %v", err)
				}
				if got := client.asked(); got != "server1 server2" {
					t.Errorf("asked %s", got)
				}
			})
		})
	}
}

// An error of the request itself is neither reported nor retried.
func TestApplicationErrorIsNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{"server1": breaking(stream.Application, 2), "server2": whole}}
		r := start(t, Config{Source: newListing(instances(2)...), Client: client})
		got, err := ask(t.Context(), r, hello())
		if got != "he" || !errors.Is(err, stream.Application) || err.Error() != "attempt 1 at server1 (1): application: as told" {
			t.Errorf("%q, %v", got, err)
		}
		if client.asked() != "server1" {
			t.Errorf("asked %s", client.asked())
		}
		wantAvail(t, r, "server1 server2")

		client.by["server1"], client.by["server2"] = breaking(stream.Failed, 1), breaking(stream.Application, 2)
		_, err = ask(t.Context(), r, hello())
		const want = "attempt 2 at server2 (2): application: as told; before it attempt 1 at server1 (1): failed: as told"
		if !errors.Is(err, stream.Application) || !errors.Is(err, stream.Failed) || err.Error() != want {
			t.Errorf("after another break: %v, want %s", err, want)
		}
		wantAvail(t, r, "server2")
	})
}

// An error that is not a break ends the request, as it would recur elsewhere.
func TestUnknownErrorEndsTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{"server1": func(_ context.Context, _ stream.Request, _ func(string) bool) error {
			return errBoom
		}}}
		r := start(t, Config{Source: newListing(instances(2)...), Client: client})
		if _, err := ask(t.Context(), r, hello()); !errors.Is(err, errBoom) {
			t.Errorf("ended with %v", err)
		}
		wantAvail(t, r, "server1 server2")
	})
}

func TestRequestOnTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []stream.Request
		note := func(then server) server {
			return func(ctx context.Context, req stream.Request, send func(string) bool) error {
				got = append(got, req)
				return then(ctx, req, send)
			}
		}
		client := &servers{by: map[string]server{
			"server1": note(breaking(stream.Failed, 2)), "server2": note(breaking(stream.Overloaded, 0)), "server3": note(whole),
		}}
		r := start(t, Config{Source: newListing(instances(3)...), Client: client})
		req := Request{Data: stream.String("hello")}
		if _, err := ask(t.Context(), r, req); err != nil {
			t.Fatal(err)
		}
		id := got[0].ID
		if len(id) != 16 {
			t.Errorf("made up the id %q", id)
		}
		for i, want := range []stream.Request{
			{ID: id, From: 0, Attempt: 1}, {ID: id, From: 2, Attempt: 2}, {ID: id, From: 2, Attempt: 2},
		} {
			if g := got[i]; g.ID != want.ID || g.From != want.From || g.Attempt != want.Attempt || string(g.Data) != `"hello"` {
				t.Errorf("request %d: %+v, want %+v", i+1, g, want)
			}
		}
	})
}

// Many streams that break at once are one failure.
func TestManyBreaksAreOneFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{
			"server1": after(time.Second, breaking(stream.Truncated, 2)), "server2": whole,
		}}
		r := start(t, Config{Source: newListing(instances(2)...), Client: client, MaxCooldown: time.Hour})
		downs := make(chan Down, 100)
		req := traced(&Trace{Down: func(d Down) { downs <- d }})
		for range cap(downs) {
			go func() {
				if got, err := ask(t.Context(), r, req); got != "he|llo" || err != nil {
					t.Errorf("got %q, %v", got, err)
				}
			}()
		}
		sleep(2 * time.Second)
		if d := <-downs; len(downs) > 0 || d.Instance.ID != discovery.InstanceID(1) || d.Until.Sub(d.Since) != 5*time.Second {
			t.Errorf("%d more than %+v", len(downs), d)
		}
	})
}
