package stream_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// Requests that begin together get as many connections as they fill, made
// sixteen at a time.
func TestDialsRunAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const requests, roundTrip = 2560, 100 * time.Millisecond
		l := servePipe(t, &stream.Server{Handler: func(ctx context.Context, _ *stream.Request, _ func(stream.Annotated) error) error {
			select {
			case <-time.After(10 * time.Second): // all run at once
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}})
		var dials, now, most atomic.Int32
		c := newClient(t, &stream.Client{Dial: counted(func(ctx context.Context, addr string) (net.Conn, error) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			time.Sleep(roundTrip)
			return l.dial(ctx, addr)
		}, &dials)})
		begin := time.Now()
		var all sync.WaitGroup
		for range requests {
			all.Go(func() {
				if _, err := items(t.Context(), c, "", text("x")); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if took := time.Since(begin); took > 10*time.Second+2*roundTrip {
			t.Errorf("the last one began after %v, want two dials' time", took-10*time.Second)
		}
		if n := dials.Load(); n != requests/stream.DefaultMaxStreams {
			t.Errorf("%d dials, want %d", n, requests/stream.DefaultMaxStreams)
		}
		if n := most.Load(); n != 16 {
			t.Errorf("%d dials at once, want 16", n)
		}
	})
}

// An absent server costs each request the time of one dial, however many
// requests there are.
func TestManyRequestsToNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nobody := newPipeListener()
		c := newClient(t, &stream.Client{Dial: nobody.dial})
		begin := time.Now()
		var all sync.WaitGroup
		for range 5000 {
			all.Go(func() {
				if _, err := items(t.Context(), c, "", text("x")); kindOf(err) != stream.Unreachable {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if took := time.Since(begin); took != stream.DefaultDialTimeout {
			t.Errorf("took %v, want %v", took, stream.DefaultDialTimeout)
		}
	})
}

// A request longer than 256 KiB has a connection of its own, which others share
// afterwards.
func TestLongRequestHasItsOwnConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		handler, _ := held(release)
		l := servePipe(t, &stream.Server{Handler: handler})
		var dials atomic.Int32
		c := newClient(t, &stream.Client{Dial: counted(l.dial, &dials)})
		var requests sync.WaitGroup
		ask := func(data string) {
			requests.Go(func() {
				if got, err := items(t.Context(), c, "", text(data)); len(got) != 1 || err != nil {
					t.Errorf("%d items, %v", len(got), err)
				}
			})
			synctest.Wait()
		}
		for i, tt := range []struct {
			bytes int
			dials int32
		}{{1, 1}, {255 << 10, 1}, {257 << 10, 2}, {1, 2}, {257 << 10, 3}} {
			ask(strings.Repeat("x", tt.bytes))
			if n := dials.Load(); n != tt.dials {
				t.Errorf("request %d of %d bytes: %d connections, want %d", i, tt.bytes, n, tt.dials)
			}
		}
		close(release)
		requests.Wait()
		ask(strings.Repeat("x", 257<<10))
		ask("x")
		if n := dials.Load(); n != 3 {
			t.Errorf("%d connections in the end, want 3", n)
		}
	})
}

// A request that no server would read fails before anything is dialled, and
// what fits once also fits when it is retried.
func TestInvalidRequest(t *testing.T) {
	nested := func(n int) []byte { return []byte(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	quoted := []byte(`["` + strings.Repeat("[", 20_000) + `\"["]`)
	fits := func(t *testing.T, c *stream.Client, req stream.Request) bool {
		t.Helper()
		_, err := items(t.Context(), c, "", req)
		return !errors.Is(err, stream.ErrInvalidRequest)
	}
	synctest.Test(t, func(t *testing.T) {
		l := servePipe(t, echoing())
		c := newClient(t, &stream.Client{Dial: l.dial})
		for name, req := range map[string]stream.Request{
			"as deep as can be read": {Data: nested(9_999)},
			"brackets in a string":   {Data: quoted},
			"flat":                   {Data: []byte("[" + strings.Repeat("[],", 20_000) + "1]")},
		} {
			if got, err := items(t.Context(), c, "", req); len(got) != 1 || got[0] != string(req.Data) || err != nil {
				t.Errorf("%s: %d items, %v", name, len(got), err)
			}
		}
		// The longest request that fits at first fits later.
		low, high := 1, 2*stream.MaxLine
		first := func(n int) stream.Request {
			return stream.Request{ID: "b1946ac9d2c41f08", Data: stream.String(strings.Repeat("x", n))}
		}
		for low < high {
			if mid := (low + high + 1) / 2; fits(t, c, first(mid)) {
				low = mid
			} else {
				high = mid - 1
			}
		}
		if low < stream.MaxLine-1000 || low > stream.MaxLine-300 {
			t.Errorf("%d bytes fit", low)
		}
		later := first(low)
		later.To = strings.Repeat("x", 239) + "/1234567890abcdef"
		later.From, later.Attempt, later.Timeout = 1<<62, 1<<62, 300*24*time.Hour
		// The server has read it: it answers that it cannot start there.
		if _, err := items(t.Context(), c, "", later); !strings.Contains(err.Error(), "cannot start at item 4611686018427387904") {
			t.Errorf("the same, tried again: %v", err)
		}
		// A server's own bound may be higher or lower.
		if fits(t, c, stream.Request{Data: stream.String(strings.Repeat("x", 5000)), MaxSize: 5000}) {
			t.Error("a request above the server's bound is sent")
		}
		large := newClient(t, &stream.Client{Dial: scripted(t, answer(start, itemA, itemB, end2))})
		req := stream.Request{Data: stream.String(strings.Repeat("x", 3*stream.MaxLine)), MaxSize: 4 * stream.MaxLine}
		if got, err := items(t.Context(), large, "", req); len(got) != 2 || err != nil {
			t.Errorf("a request below a server's larger bound: %d items, %v", len(got), err)
		}
	})
	c := newClient(t, &stream.Client{Dial: func(context.Context, string) (net.Conn, error) {
		t.Error("dialled for a request that can't be sent")
		return nil, errors.New("refused")
	}})
	for name, req := range map[string]stream.Request{
		"too deep":   {Data: nested(10_000)},
		"deeper":     {Data: nested(200_000)},
		"too long":   {Data: stream.String(strings.Repeat("x", stream.MaxLine))},
		"no data":    {},
		"bad header": {Data: stream.String("x"), Headers: map[string]string{"A": "b"}},
		"from":       {Data: stream.String("x"), From: -1},
	} {
		if fits(t, c, req) {
			t.Errorf("%s: it is sent", name)
		}
	}
}

// echoing answers with the request's data, as one item.
func echoing() *stream.Server {
	return &stream.Server{Handler: func(_ context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		return send(stream.Annotated{Data: req.Data})
	}}
}
