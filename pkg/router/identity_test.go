package router

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// An instance whose record changes is the same: its report, its streams, its failures
// in a row, its backoff and its trial stay.
func TestChangedRecordKeepsWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListing(instances(2)...)
		client := &servers{by: map[string]server{
			"server1": after(time.Minute, whole), "server2": whole, moved().Address: whole,
		}}
		r := start(t, Config{Source: l, Client: client, MaxCooldown: time.Minute})
		synctest.Wait()
		go func() { _, _ = ask(t.Context(), r, hello()) }() // runs at server1 all the time
		synctest.Wait()
		r.ReportDown(1, stream.Failed)
		l.list(moved(), instance(2))
		wantAvail(t, r, "server2")
		if p := r.Tiers().Source[0]; p.Streams() != 1 || *p.Instance != moved() {
			t.Errorf("%d streams at %v", p.Streams(), *p.Instance)
		}
		sleep(DefaultCooldown)
		wantAvail(t, r, "server1b server2")
		if !r.Tiers().Source[0].HalfOpen() {
			t.Error("it is not half-open")
		}
		l.list(instances(2)...)
		synctest.Wait()
		if !r.Tiers().Source[0].HalfOpen() {
			t.Error("it is not half-open after another change")
		}
		r.ReportDown(1, stream.Failed)
		if d := r.Tiers().Down[1]; d.Until.Sub(d.Since) != 2*DefaultCooldown {
			t.Errorf("its second failure in a row counts %v", d.Until.Sub(d.Since))
		}
	})
}

// A server that was started anew under its id is another instance, also for requests
// that the earlier one broke or refused: here two servers with fixed ids are rolled.
func TestNewIncarnationIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := instances(2)
		l := newListing(old...)
		roll := func(list ...int) func(context.Context, stream.Request, func(string) bool) error {
			return func(_ context.Context, req stream.Request, send func(string) bool) error {
				_ = part(req, req.From+1, send) // it has no error
				next := instances(2)
				for _, i := range list {
					next[i-1] = restarted(i)
				}
				l.list(next...)
				return &stream.Break{Kind: stream.Draining, Reason: "as told"}
			}
		}
		client := &servers{by: map[string]server{"server1": roll(1), "server2": roll(1, 2)}}
		r := start(t, Config{Source: l, Client: client, WaitRestore: time.Minute})
		req := traced(&Trace{Attempt: func(e AttemptEvent) {
			if e.Attempt == 3 {
				client.by["server1"] = whole
			}
		}})
		if got, err := ask(t.Context(), r, req); got != "h|e|llo" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if got := client.asked(); got != "server1 server2 server1" {
			t.Errorf("asked %s", got)
		}
	})
}

// A request names the record that it means, and may be as large as that allows.
func TestRequestsAreAddressed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []stream.Request
		client := &servers{by: map[string]server{"server1": func(_ context.Context, req stream.Request, _ func(string) bool) error {
			got = append(got, req)
			return nil
		}}}
		i := instance(1)
		l := newListing(i)
		r := start(t, Config{Source: l, Client: client})
		req := hello()
		req.Timeout, req.Headers = time.Minute, map[string]string{"traceparent": "x"}
		for _, incarnation := range []string{"", "a"} {
			i.Incarnation, i.MaxRequest = incarnation, 1<<25
			l.list(i)
			synctest.Wait()
			if _, err := ask(t.Context(), r, req); err != nil {
				t.Fatal(err)
			}
		}
		if got[0].To != "" || got[1].To != "dynamo/backend/generate/1" || got[1].MaxSize != 1<<25 {
			t.Errorf("asked %+v", got)
		}
		if got[1].Timeout != time.Minute || got[1].Headers["traceparent"] != "x" {
			t.Errorf("asked %+v", got[1])
		}
	})
}

// A request that reaches another server than the record says goes on elsewhere within
// its attempt, and the instance of that record is reported.
func TestMisdirected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{"server1": breaking(stream.Misdirected, 0), "server2": whole}}
		r := start(t, Config{Source: newListing(instances(2)...), Client: client, Attempts: 1})
		var refused []BreakEvent
		got, err := ask(t.Context(), r, traced(&Trace{
			Refused: func(e BreakEvent) { refused = append(refused, e) },
			Break:   func(e BreakEvent) { t.Errorf("break: %+v", e) },
		}))
		if got != "hello" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		wantAvail(t, r, "server2")
		if len(refused) != 1 || !refused[0].Reported {
			t.Errorf("refused: %+v", refused)
		}
	})
}
