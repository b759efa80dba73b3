package router

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

const noneFound = "no instances found for endpoint dynamo/backend/generate "

// wantEnd makes a request, which must end with a text after exactly d.
func wantEnd(t *testing.T, r *Router, req Request, text string, d time.Duration) {
	t.Helper()
	begin := time.Now()
	_, err := ask(t.Context(), r, req)
	got := ""
	if err != nil {
		got = err.Error()
	}
	if got != text {
		t.Errorf("ended with %q, want %q", got, text)
	}
	if took := time.Since(begin); took != d {
		t.Errorf("it took %v, want %v", took, d)
	}
}

func TestNoInstances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListing()
		client := &servers{by: map[string]server{"server1": breaking(stream.Failed, 1), "server2": breaking(stream.Truncated, 1)}}
		r := start(t, Config{Source: l, Client: client})
		wantEnd(t, r, hello(), noneFound+"(0 in source)", 0)
		l.list(instances(2)...)
		sleep(time.Millisecond)
		r.ReportDown(2, stream.Failed)
		sleep(1550 * time.Millisecond)
		wantEnd(t, r, hello(), noneFound+"(2 in source, 2 down, the next returns in 3.5s): attempt 1 at server1 (1): failed: as told", 0)
		wantEnd(t, r, hello(), noneFound+"(2 in source, 2 down, the next returns in 3.5s)", 0)
		_, err := ask(t.Context(), r, hello())
		none, ok := errors.AsType[*NoInstancesError](err)
		if !ok || !errors.Is(err, ErrNoInstances) || none.Next != 3450*time.Millisecond || none.Down != 2 || none.Endpoint != testEndpoint {
			t.Errorf("%+v", none)
		}
	})
}

func TestWaitForTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListing()
		client := &servers{by: map[string]server{"server1": whole}}
		r := start(t, Config{Source: l, Client: client, Wait: 10 * time.Second})
		wantEnd(t, r, hello(), noneFound+"(0 in source, after waiting 10s)", 10*time.Second)
		time.AfterFunc(3*time.Second, func() { l.list(instance(1)) })
		wantEnd(t, r, hello(), "", 3*time.Second)
		wantEnd(t, r, hello(), "", 0)
		// Those that are down are there; for them there is WaitRestore.
		r.ReportDown(1, stream.Failed)
		wantEnd(t, r, hello(), noneFound+"(1 in source, 1 down, the next returns in 5s)", 0)
	})
}

func TestWaitRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListing(instances(2)...)
		client := &servers{by: map[string]server{"server1": breaking(stream.Failed, 0), "server2": whole}}
		r := start(t, Config{Source: l, Client: client, WaitRestore: 4 * time.Second})
		sleep(time.Millisecond)
		r.ReportDown(2, stream.Failed)
		sleep(2 * time.Second)
		wantEnd(t, r, hello(), "", 3*time.Second) // at server2
		if got := client.asked(); got != "server1 server2" {
			t.Errorf("asked %s", got)
		}
		r.ReportDown(2, stream.Failed)
		sleep(500 * time.Millisecond)
		// server1 returns in 1.5 s and breaks again, 3 s before server2 returns.
		wantEnd(t, r, hello(), "", 4500*time.Millisecond)
		client.by["server2"] = breaking(stream.Failed, 0)
		sleep(5 * time.Second)
		wantEnd(t, r, hello(), noneFound+"(2 in source, 2 down, the next returns in 1s, after waiting 4s)"+
			": attempt 1 at server1 (1): failed: as told; attempt 2 at server2 (2): failed: as told", 4*time.Second)
		// A newcomer will do, too.
		client.by["server3"] = whole
		time.AfterFunc(500*time.Millisecond, func() { l.list(instances(3)...) })
		wantEnd(t, r, hello(), "", 500*time.Millisecond)
	})
}

// An instance that returns at the moment when the wait ends is used.
func TestWaitRestoreToTheLastMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{"server1": whole}}
		r := start(t, Config{Source: newListing(instance(1)), Client: client, WaitRestore: 5*time.Second + justBefore})
		sleep(time.Millisecond)
		r.ReportDown(1, stream.Failed)
		wantEnd(t, r, hello(), "", 5*time.Second)
	})
}

func TestPreferredInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		byID := instance(0x1f)
		twin := instance(4)
		twin.Name = "server3" // started anew under another id, say
		l := newListing(instance(1), instance(2), instance(3), twin, byID)
		client := &servers{by: map[string]server{
			"server1": whole, "server2": whole, "server3": breaking(stream.Failed, 2), "server4": whole, "server31": whole,
		}}
		r := start(t, Config{Source: l, Client: client})
		for _, tt := range []struct{ preferred, want string }{
			{"server2", "server2"},
			{"2", "server2"},
			{"1f", "server31"},
			{"server31", "server31"},
			{"server3", "server3 server1"}, // failover goes elsewhere, not to its twin
			{"server3", "server4"},         // the twin that is up
			{"3", "server1"},               // down
		} {
			client.calls = nil
			req := hello()
			req.Instance = tt.preferred
			if _, err := ask(t.Context(), r, req); err != nil {
				t.Errorf("%s: %v", tt.preferred, err)
			}
			if got := client.asked(); got != tt.want {
				t.Errorf("%s: asked %s, want %s", tt.preferred, got, tt.want)
			}
		}
		client.by["server2"] = breaking(stream.Overloaded, 0)
		client.calls = nil
		req := hello()
		req.Instance = "server2"
		if _, err := ask(t.Context(), r, req); err != nil || client.asked() != "server2 server1" {
			t.Errorf("refused by the preferred: asked %s, %v", client.asked(), err)
		}
	})
}

func TestUnknownPreferredInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListing()
		client := &servers{by: map[string]server{"server9": whole}}
		r := start(t, Config{Source: l, Client: client, Wait: time.Second})
		req := hello()
		req.Instance = "server9"
		wantEnd(t, r, req, noneFound+`(none is called "server9", there is none, after waiting 1s)`, time.Second)
		l.list(instances(2)...)
		wantEnd(t, r, req, noneFound+`(none is called "server9", there are server1 (1), server2 (2), after waiting 1s)`, time.Second)
		_, err := ask(t.Context(), r, req)
		if none, ok := errors.AsType[*NoInstancesError](err); !ok || none.Wanted != "server9" || len(none.Known) != 2 {
			t.Errorf("%+v", err)
		}
		l.list(instances(8)...)
		time.AfterFunc(time.Second/2, func() { l.list(instances(9)...) })
		wantEnd(t, r, req, "", time.Second/2)
		l.list(instances(500)...)
		req.Instance = "nobody"
		if _, err := ask(t.Context(), r, req); !strings.Contains(err.Error(), "server10 (a) and 490 more") {
			t.Errorf("of many: %v", err)
		}
	})
}

// If discovery can't be read, the request fails at once, with that error.
func TestSourceThatWasNeverRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListing()
		l.change(nil, errBoom)
		client := &servers{by: map[string]server{"server1": whole}}
		r := start(t, Config{Source: l, Client: client, Wait: 10 * time.Second})
		const want = "reading the instances of endpoint dynamo/backend/generate: boom"
		wantEnd(t, r, hello(), want, 0)
		sleep(2500 * time.Millisecond)
		wantEnd(t, r, hello(), want, 0)
		l.list(instance(1))
		sleep(time.Second) // to the next attempt to read it
		wantEnd(t, r, hello(), "", 0)
	})
}

func TestSourceThatSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListing()
		l.change(nil, nil)
		client := &servers{by: map[string]server{"server1": whole}}
		r := start(t, Config{Source: l, Client: client, Wait: 10 * time.Second})
		wantEnd(t, r, hello(), noneFound+"(0 in source, after waiting 10s, discovery can't be read: no answer yet)", 10*time.Second)
		// Without Wait the first set is still waited for: it comes at once.
		r = start(t, Config{Source: l, Client: client})
		time.AfterFunc(time.Second, func() { l.list(instance(1)) })
		wantEnd(t, r, hello(), "", time.Second)
		// An empty set is one to wait with, however stale.
		l.change(&discovery.Instances{Stale: errBoom}, nil)
		r = start(t, Config{Source: l, Client: client, Wait: 10 * time.Second})
		wantEnd(t, r, hello(), noneFound+"(0 in source, after waiting 10s, discovery can't be read: boom)", 10*time.Second)
	})
}
