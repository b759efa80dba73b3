package receipt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
)

// server answers with the characters of "hello".
type server struct {
	wait time.Duration // before the first item
	pace time.Duration // before each item
	to   int           // index of the item before which it breaks; 0 is before the first
	kind stream.Kind   // of the break; "" for a whole answer
	// stale says that the connection was replaced.
	stale bool
}

// servers is a [router.Client]: servers by their addresses.
type servers map[string]server

func (s servers) Stream(ctx context.Context, i discovery.Instance, req stream.Request) iter.Seq2[stream.Annotated, error] {
	addr := i.Address
	return func(yield func(stream.Annotated, error) bool) {
		const text = "hello"
		server := s[addr]
		if server.stale {
			req.Hooks.Stale()
		}
		if server.kind == "" {
			server.to = len(text)
		}
		time.Sleep(server.wait)
		for i := req.From; i < server.to; i++ {
			time.Sleep(server.pace)
			if err := ctx.Err(); err != nil {
				yield(stream.Annotated{}, err)
				return
			}
			if !yield(stream.Annotated{Data: stream.String(text[i : i+1])}, nil) {
				return
			}
		}
		if server.kind != "" {
			yield(stream.Annotated{}, &stream.Break{Kind: server.kind, Reason: "as told"})
		}
	}
}

// inOrder picks the first instance there is.
type inOrder struct{}

func (inOrder) Pick(_ router.Choice, avail []*router.Peer) *router.Peer { return avail[0] }

// start returns a router over servers, whose names are server1 and so on.
func start(t *testing.T, restart bool, all ...server) *router.Router {
	t.Helper()
	client := make(servers)
	var list []discovery.Instance
	for n, s := range all {
		name := fmt.Sprintf("server%d", n+1)
		client[name] = s
		list = append(list, discovery.Instance{ID: discovery.InstanceID(n + 1), Name: name, Transport: discovery.NDJSON, Address: name})
	}
	r := router.New(router.Config{
		Endpoint: discovery.Endpoint{Namespace: "dynamo", Component: "backend", Name: "generate"},
		Source:   discovery.Static(list...), Client: client, Picker: inOrder{}, Restart: restart,
	})
	t.Cleanup(r.Close)
	return r
}

// record makes a request and returns its receipt and its error.
func record(ctx context.Context, r *router.Router) (Receipt, error) {
	var rec Recorder
	var failed error
	for _, err := range r.Do(ctx, router.Request{ID: "r1", Data: stream.String("hello"), Trace: rec.Trace()}) {
		failed = err
	}
	return rec.Receipt(), failed
}

func TestReceipt(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name    string
		restart bool
		servers []server
		want    string
	}{
		{"in one go", true, []server{{}}, `{
			"request": "r1", "outcome": "success", "items": 5,
			"attempts": [{"attempt": 1, "instance": "1", "name": "server1", "from": 0, "to": 5, "reported": false}],
			"served": [{"instance": "1", "name": "server1", "from": 0, "to": 5}],
			"refusals": [], "stale": [], "repeated": 0, "gaps_ms": []
		}`},
		{"resume", false, []server{
			{pace: 10 * ms, to: 2, kind: stream.Truncated}, {wait: 3 * ms, kind: stream.Overloaded},
			{wait: 7 * ms, pace: 10 * ms, to: 4, kind: stream.Failed}, {},
		}, `{
			"request": "r1", "outcome": "success", "items": 5,
			"attempts": [
				{"attempt": 1, "instance": "1", "name": "server1", "from": 0, "to": 2, "kind": "truncated", "error": "truncated: as told", "reported": true},
				{"attempt": 2, "instance": "3", "name": "server3", "from": 2, "to": 4, "way": "index", "kind": "failed", "error": "failed: as told", "reported": true},
				{"attempt": 3, "instance": "4", "name": "server4", "from": 4, "to": 5, "way": "index", "reported": false}
			],
			"served": [
				{"instance": "1", "name": "server1", "from": 0, "to": 2},
				{"instance": "3", "name": "server3", "from": 2, "to": 4},
				{"instance": "4", "name": "server4", "from": 4, "to": 5}
			],
			"refusals": [{"attempt": 2, "instance": "2", "name": "server2", "kind": "overloaded", "error": "overloaded: as told", "reported": false}],
			"stale": [], "repeated": 0, "gaps_ms": [20, 0]
		}`},
		{"restart", true, []server{{to: 4, kind: stream.Stalled}, {wait: 2*ms + ms/4, to: 2, kind: stream.Failed}, {wait: ms}}, `{
			"request": "r1", "outcome": "success", "items": 5,
			"attempts": [
				{"attempt": 1, "instance": "1", "name": "server1", "from": 0, "to": 4, "kind": "stalled", "error": "stalled: as told", "reported": true},
				{"attempt": 2, "instance": "2", "name": "server2", "from": 0, "to": 2, "way": "restart", "kind": "failed", "error": "failed: as told", "reported": true},
				{"attempt": 3, "instance": "3", "name": "server3", "from": 0, "to": 5, "way": "restart", "reported": false}
			],
			"served": [{"instance": "3", "name": "server3", "from": 0, "to": 5}],
			"refusals": [], "stale": [], "repeated": 6, "gaps_ms": [2.25, 1]
		}`},
		{"only the end was lost", false, []server{{to: 5, kind: stream.Truncated}, {}}, `{
			"request": "r1", "outcome": "success", "items": 5,
			"attempts": [
				{"attempt": 1, "instance": "1", "name": "server1", "from": 0, "to": 5, "kind": "truncated", "error": "truncated: as told", "reported": true},
				{"attempt": 2, "instance": "2", "name": "server2", "from": 5, "to": 5, "way": "index", "reported": false}
			],
			"served": [{"instance": "1", "name": "server1", "from": 0, "to": 5}],
			"refusals": [], "stale": [], "repeated": 0, "gaps_ms": []
		}`},
		{"nobody", true, nil, `{
			"request": "r1", "outcome": "no_instances", "items": 0, "attempts": [], "served": [], "refusals": [], "stale": [], "repeated": 0, "gaps_ms": [],
			"error": "no instances found for endpoint dynamo/backend/generate (0 in source)"
		}`},
		{"application", false, []server{{to: 1, kind: stream.Reset}, {to: 2, kind: stream.Application}}, `{
			"request": "r1", "outcome": "application", "items": 2,
			"error": "attempt 2 at server2 (2): application: as told; before it attempt 1 at server1 (1): reset: as told",
			"attempts": [
				{"attempt": 1, "instance": "1", "name": "server1", "from": 0, "to": 1, "kind": "reset", "error": "reset: as told", "reported": true},
				{"attempt": 2, "instance": "2", "name": "server2", "from": 1, "to": 2, "way": "index", "kind": "application", "error": "application: as told", "reported": false}
			],
			"served": [{"instance": "1", "name": "server1", "from": 0, "to": 1}, {"instance": "2", "name": "server2", "from": 1, "to": 2}],
			"refusals": [], "stale": [], "repeated": 0, "gaps_ms": [0]
		}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				receipt, err := record(t.Context(), start(t, tt.restart, tt.servers...))
				if (err == nil) != (receipt.Outcome == OutcomeSuccess) {
					t.Errorf("%s, but the error is %v", receipt.Outcome, err)
				}
				if got, want := normal(t, receipt), normal(t, json.RawMessage(tt.want)); got != want {
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
			})
		})
	}
}

// A kept connection that was replaced is in the receipt, apart from the attempts.
func TestStaleConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		receipt, err := record(t.Context(), start(t, false, server{stale: true}))
		if err != nil || len(receipt.Attempts) != 1 || len(receipt.Stale) != 1 || receipt.Stale[0] != (Stale{Attempt: 1, Instance: 1, Name: "server1"}) {
			t.Errorf("%v, receipt: %+v", err, receipt)
		}
	})
}

// A request that its caller cancels has no break.
func TestCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, false, server{to: 1, kind: stream.Failed}, server{pace: time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		receipt, err := record(ctx, r)
		if err == nil || receipt.Outcome != OutcomeCancelled || len(receipt.Attempts) != 2 || receipt.Attempts[1].Kind != "" {
			t.Errorf("%v, receipt: %+v", err, receipt)
		}
	})
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
	a := func(id discovery.InstanceID, from, to int) Attempt {
		return Attempt{Instance: id, Name: fmt.Sprintf("server%d", id), From: from, To: to}
	}
	for _, tt := range []struct {
		attempts []Attempt
		want     string
	}{
		{[]Attempt{a(1, 0, 0), a(2, 0, 3)}, "[{2 server2 0 3}]"},
		{[]Attempt{a(1, 0, 4), a(2, 0, 2)}, "[{2 server2 0 2}]"},
		{[]Attempt{a(1, 0, 4), a(2, 4, 6), a(3, 2, 5)}, "[{1 server1 0 2} {3 server3 2 5}]"},
	} {
		if got := fmt.Sprint(served(tt.attempts)); got != tt.want {
			t.Errorf("of %v: %s, want %s", tt.attempts, got, tt.want)
		}
	}
}

func TestOutcomeOf(t *testing.T) {
	within := func(err error) error {
		timeout := &stream.Break{Kind: stream.Unreachable, Err: context.DeadlineExceeded} // of the dial
		return &router.AttemptsError{Attempts: []error{&router.AttemptError{Attempt: 1, Err: timeout}}, Err: err}
	}
	for _, tt := range []struct {
		err  error
		want Outcome
	}{
		{nil, OutcomeSuccess},
		{&router.NoInstancesError{}, OutcomeNoInstances},
		{within(&router.NoInstancesError{}), OutcomeNoInstances},
		{within(router.ErrAttemptsUsedUp), OutcomeAttemptsUsedUp},
		{router.ErrOverloaded, OutcomeOverloaded},
		{within(router.ErrOverloaded), OutcomeOverloaded},
		{&router.CannotResumeError{}, OutcomeCannotResume},
		{within(&router.CannotResumeError{}), OutcomeCannotResume},
		{&router.AttemptError{Err: &stream.Break{Kind: stream.Application}}, OutcomeApplication},
		{within(&router.AttemptError{Err: &stream.Break{Kind: stream.Application}}), OutcomeApplication},
		{fmt.Errorf("request: %w", context.Canceled), OutcomeCancelled},
		{fmt.Errorf("request: %w", context.DeadlineExceeded), OutcomeCancelled},
		{router.ErrClosed, OutcomeOther},
		{within(router.ErrClosed), OutcomeOther},
		{errors.New("discovery can't be read"), OutcomeOther},
	} {
		if got := OutcomeOf(tt.err); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.err, got, tt.want)
		}
	}
}
