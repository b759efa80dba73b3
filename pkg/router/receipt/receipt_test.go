package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// paced waits before each item that it passes on.
func paced(d time.Duration, serve server) server {
	return func(ctx context.Context, req stream.Request, send func(string) bool) error {
		return serve(ctx, req, func(item string) bool {
			time.Sleep(d)
			return send(item)
		})
	}
}

func TestReceipt(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name    string
		resume  bool
		servers []server
		want    string
	}{
		{"in one go", false, []server{whole}, `{
			"request": "r1", "outcome": "success", "items": 5,
			"attempts": [{"attempt": 1, "instance": "1", "name": "server1", "from": 0, "to": 5, "blamed": false}],
			"served": [{"instance": "1", "name": "server1", "from": 0, "to": 5}],
			"refusals": [], "stale": [], "repeated": 0, "gaps_ms": []
		}`},
		{"resume", true, []server{
			paced(10*ms, breaking(stream.Truncated, 2)), after(3*ms, breaking(stream.Overloaded, 0)), after(7*ms, paced(10*ms, breaking(stream.Failed, 4))), whole,
		}, `{
			"request": "r1", "outcome": "success", "items": 5,
			"attempts": [
				{"attempt": 1, "instance": "1", "name": "server1", "from": 0, "to": 2, "kind": "truncated", "error": "truncated: as told", "blamed": true},
				{"attempt": 2, "instance": "3", "name": "server3", "from": 2, "to": 4, "kind": "failed", "error": "failed: as told", "blamed": true},
				{"attempt": 3, "instance": "4", "name": "server4", "from": 4, "to": 5, "blamed": false}
			],
			"served": [
				{"instance": "1", "name": "server1", "from": 0, "to": 2},
				{"instance": "3", "name": "server3", "from": 2, "to": 4},
				{"instance": "4", "name": "server4", "from": 4, "to": 5}
			],
			"refusals": [{"attempt": 2, "instance": "2", "name": "server2", "kind": "overloaded", "error": "overloaded: as told", "blamed": false}],
			"stale": [], "repeated": 0, "gaps_ms": [20, 0]
		}`},
		{"restart", false, []server{breaking(stream.Stalled, 4), after(2*ms+ms/4, breaking(stream.Failed, 2)), after(ms, whole)}, `{
			"request": "r1", "outcome": "success", "items": 5,
			"attempts": [
				{"attempt": 1, "instance": "1", "name": "server1", "from": 0, "to": 4, "kind": "stalled", "error": "stalled: as told", "blamed": true},
				{"attempt": 2, "instance": "2", "name": "server2", "from": 0, "to": 2, "kind": "failed", "error": "failed: as told", "blamed": true},
				{"attempt": 3, "instance": "3", "name": "server3", "from": 0, "to": 5, "blamed": false}
			],
			"served": [{"instance": "3", "name": "server3", "from": 0, "to": 5}],
			"refusals": [], "stale": [], "repeated": 6, "gaps_ms": [2.25, 1]
		}`},
		{"only the end was lost", true, []server{breaking(stream.Truncated, 5), whole}, `{
			"request": "r1", "outcome": "success", "items": 5,
			"attempts": [
				{"attempt": 1, "instance": "1", "name": "server1", "from": 0, "to": 5, "kind": "truncated", "error": "truncated: as told", "blamed": true},
				{"attempt": 2, "instance": "2", "name": "server2", "from": 5, "to": 5, "blamed": false}
			],
			"served": [{"instance": "1", "name": "server1", "from": 0, "to": 5}],
			"refusals": [], "stale": [], "repeated": 0, "gaps_ms": []
		}`},
		{"nobody", false, nil, `{
			"request": "r1", "outcome": "no_instances", "items": 0, "attempts": [], "served": [], "refusals": [], "stale": [], "repeated": 0, "gaps_ms": [],
			"error": "no instances found for endpoint dynamo/backend/generate (0 in source)"
		}`},
		{"application", true, []server{breaking(stream.Reset, 1), breaking(stream.Application, 2)}, `{
			"request": "r1", "outcome": "application", "items": 2,
			"error": "attempt 2 at server2 (2): application: as told; before it attempt 1 at server1 (1): reset: as told",
			"attempts": [
				{"attempt": 1, "instance": "1", "name": "server1", "from": 0, "to": 1, "kind": "reset", "error": "reset: as told", "blamed": true},
				{"attempt": 2, "instance": "2", "name": "server2", "from": 1, "to": 2, "kind": "application", "error": "application: as told", "blamed": false}
			],
			"served": [{"instance": "1", "name": "server1", "from": 0, "to": 1}, {"instance": "2", "name": "server2", "from": 1, "to": 2}],
			"refusals": [], "stale": [], "repeated": 0, "gaps_ms": [0]
		}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := &servers{by: make(map[string]server)}
				for i, serve := range tt.servers {
					client.by[instance(i+1).Address] = serve
				}
				r := start(t, Config{Source: newListing(instances(len(tt.servers))...).watch, Client: client, Restart: !tt.resume})
				rec := &Recorder{}
				_, err := ask(WithTrace(t.Context(), rec.Trace()), r, hello())
				receipt := rec.Receipt()
				if (err == nil) != (receipt.Outcome == Success) {
					t.Errorf("%s, but the error is %v", receipt.Outcome, err)
				}
				if got, want := normal(t, receipt), normal(t, json.RawMessage(tt.want)); got != want {
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
			})
		})
	}
}

// normal returns v as JSON with its fields in order.
func normal(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var a any
	if err := json.Unmarshal(b, &a); err != nil {
		t.Fatal(err)
	}
	b, err = json.MarshalIndent(a, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestServed(t *testing.T) {
	a := func(id, from, to int) AttemptReceipt {
		i := instance(id)
		return AttemptReceipt{Instance: i.ID, Name: i.Name, From: from, To: to}
	}
	for _, tt := range []struct {
		attempts []AttemptReceipt
		want     string
	}{
		{[]AttemptReceipt{a(1, 0, 0), a(2, 0, 3)}, "[{2 server2 0 3}]"},
		{[]AttemptReceipt{a(1, 0, 4), a(2, 0, 2)}, "[{2 server2 0 2}]"},
		{[]AttemptReceipt{a(1, 0, 4), a(2, 4, 6), a(3, 2, 5)}, "[{1 server1 0 2} {3 server3 2 5}]"},
	} {
		if got := fmt.Sprint(served(tt.attempts)); got != tt.want {
			t.Errorf("of %v: %s, want %s", tt.attempts, got, tt.want)
		}
	}
}

func TestOutcomeOf(t *testing.T) {
	within := func(err error) error {
		timeout := &stream.Break{Kind: stream.Unreachable, Err: context.DeadlineExceeded} // of the dial
		return &AttemptsError{Attempts: []error{&AttemptError{Attempt: 1, Err: timeout}}, Err: err}
	}
	for _, tt := range []struct {
		err  error
		want Outcome
	}{
		{nil, Success},
		{&NoInstancesError{}, NoInstances},
		{within(&NoInstancesError{}), NoInstances},
		{within(ErrAttemptsUsedUp), AttemptsUsedUp},
		{ErrOverloaded, Overloaded},
		{within(ErrOverloaded), Overloaded},
		{&AttemptError{Err: &stream.Break{Kind: stream.Application}}, Application},
		{within(&AttemptError{Err: &stream.Break{Kind: stream.Application}}), Application},
		{fmt.Errorf("request: %w", context.Canceled), Cancelled},
		{fmt.Errorf("request: %w", context.DeadlineExceeded), Cancelled},
		{ErrClosed, Failed},
		{within(ErrClosed), Failed},
		{errors.New("discovery can't be read"), Failed},
	} {
		if got := OutcomeOf(tt.err); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.err, got, tt.want)
		}
	}
}
