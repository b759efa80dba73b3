package stream_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// answer returns a script that answers one request with lines, in which N
// stands for the stream, and then keeps the connection open.
func answer(lines ...string) func(*peer) {
	return func(p *peer) {
		p.answer(lines...)
		p.hold()
	}
}

// answer reads a request and sends lines, in which N stands for the stream.
func (p *peer) answer(lines ...string) {
	a, ok := p.request()
	if !ok {
		return
	}
	for _, line := range lines {
		p.say(strings.ReplaceAll(line, `{N`, fmt.Sprintf(`{"stream":%d`, a.Stream)))
	}
}

const (
	start = `{N,"event":"start","id":"0"}`
	itemA = `{N,"data":"a"}`
	itemB = `{N,"data":"b"}`
	end2  = `{N,"event":"end","id":"2"}`
)

// bounds are the bounds of a client that differ from the defaults.
type bounds struct{ start, stall, item time.Duration }

// TestBreaks has a server break a request in every way. All times are exact.
func TestBreaks(t *testing.T) {
	long := `{N,"data":"` + strings.Repeat("x", stream.MaxLine) + `"}`
	wait := func(d time.Duration, lines ...string) func(*peer) {
		return func(p *peer) {
			p.answer(lines...)
			time.Sleep(d)
			p.Close()
		}
	}
	for _, tt := range []struct {
		name   string
		script func(*peer)
		bounds bounds
		from   int
		want   stream.Kind
		reason string // part of the error
		items  int
		after  time.Duration
	}{
		{name: "complete", script: answer(start, itemA, itemB, end2), items: 2},
		{name: "remarks", script: answer(`{N,"comment":["soon"]}`, `{N,"event":"ping"}`, start, `{N,"event":"progress"}`, `{N}`, itemA, `{N,"event":"news","data":"b"}`, `{N,"event":"ping"}`, end2), items: 2},
		{name: "resumed", script: answer(`{N,"event":"start","id":"3"}`, itemA, `{N,"event":"end","id":"4"}`), from: 3, items: 1},
		{name: "only the end is missing", script: answer(`{N,"event":"start","id":"3"}`, `{N,"event":"end","id":"3"}`), from: 3},

		{name: "no start", script: answer(), want: stream.Unresponsive, reason: "no start within 2s", after: 2 * time.Second},
		{name: "no start, own bound", script: answer(), bounds: bounds{start: 7 * time.Second}, want: stream.Unresponsive, reason: "within 7s", after: 7 * time.Second},
		{name: "pings but no start", script: pings(time.Second, 10), want: stream.Unresponsive, after: 2 * time.Second},
		{name: "remarks but no start", script: forever(`{N,"comment":["soon"]}`, 10*time.Millisecond), want: stream.Unresponsive, after: 2 * time.Second},
		{name: "start at the last moment", script: func(p *peer) {
			time.Sleep(2*time.Second - 1)
			p.answer(start, itemA, itemB, end2)
			p.hold()
		}, items: 2, after: 2*time.Second - 1},

		{name: "silence", script: answer(start, itemA), want: stream.Stalled, reason: "no byte for 15s", items: 1, after: 15 * time.Second},
		{name: "silence, own bound", script: answer(start, itemA), bounds: bounds{stall: 4 * time.Second}, want: stream.Stalled, reason: "no byte for 4s", items: 1, after: 4 * time.Second},
		{name: "bytes that never are a line", script: drip(strings.Repeat("x", 100), start), want: stream.Truncated, reason: "middle of a line", after: 100 * time.Second},
		{name: "pings in silence", script: pings(14*time.Second, 20, start, itemA), want: stream.Truncated, items: 1, after: 20 * 14 * time.Second},
		{name: "no item", script: pings(5*time.Second, 20, start, itemA), bounds: bounds{item: 12 * time.Second}, want: stream.Stalled, reason: "no item for 12s", items: 1, after: 12 * time.Second},
		{name: "no first item", script: pings(5*time.Second, 20, start), bounds: bounds{item: 12 * time.Second}, want: stream.Stalled, reason: "no item for 12s", after: 12 * time.Second},
		{name: "remarks but no item", script: forever(`{N,"comment":["soon"]}`, 10*time.Millisecond, start, itemA), bounds: bounds{item: 12 * time.Second}, want: stream.Stalled, items: 1, after: 12 * time.Second},

		{name: "closed at once", script: wait(0), want: stream.Truncated, reason: "closed before the end"},
		{name: "closed after the start", script: wait(time.Second, start), want: stream.Truncated, after: time.Second},
		{name: "closed before the end", script: wait(time.Second, start, itemA, itemB), want: stream.Truncated, items: 2, after: time.Second},
		{name: "half an item", script: half(`{"stream":1,"data":"b"}`, start, itemA), want: stream.Truncated, reason: "middle of a line", items: 1},
		{name: "half an end", script: half(`{"stream":1,"event":"end","id":"2"}`, start, itemA, itemB), want: stream.Truncated, reason: "middle of a line", items: 2},

		{name: "bad JSON", script: answer(start, itemA, `{N,"data":}`), want: stream.Protocol, reason: "bad line", items: 1},
		{name: "no JSON", script: answer(start, itemA, "Segmentation fault"), want: stream.Protocol, reason: `"Segmentation fault"`, items: 1},
		{name: "no UTF-8", script: answer(start, itemA, "{N,\"data\":\"\xff\"}"), want: stream.Protocol, reason: "not UTF-8", items: 1},
		{name: "over-long line", script: answer(start, itemA, long), want: stream.Protocol, reason: "longer than 1048576 bytes", items: 1},
		{name: "another number too", script: answer(start, itemA, `{N,"data":"b","stream":8}`), want: stream.Protocol, reason: "two stream numbers", items: 1},
		{name: "a number never given", script: answer(start, itemA, `{"stream":8,"data":"b"}`), want: stream.Protocol, reason: "no stream 8", items: 1},
		{name: "no number", script: answer(start, itemA, `{"data":"b"}`), want: stream.Protocol, reason: "no stream number", items: 1},
		{name: "wrong start", script: answer(`{N,"event":"start","id":"1"}`, itemA), want: stream.Protocol, reason: "starts at item 1, not at 0"},
		{name: "start ignores from", script: answer(start, itemA), from: 3, want: stream.Protocol, reason: "starts at item 0, not at 3"},
		{name: "start without id", script: answer(`{N,"event":"start"}`, itemA), want: stream.Protocol, reason: `start line with id ""`},
		{name: "start with a bad id", script: answer(`{N,"event":"start","id":"+0"}`), want: stream.Protocol, reason: `id "+0"`},
		{name: "second start", script: answer(start, itemA, start), want: stream.Protocol, reason: "second start", items: 1},
		{name: "item before the start", script: answer(itemA), want: stream.Protocol, reason: "item before the start"},
		{name: "end before the start", script: answer(`{N,"event":"end","id":"0"}`), want: stream.Protocol, reason: "end before the start"},
		{name: "end without id", script: answer(start, `{N,"event":"end"}`), want: stream.Protocol, reason: `end line with id ""`},
		{name: "count too high", script: answer(start, itemA, end2), want: stream.Protocol, reason: "counts 2 items, 1 came", items: 1},
		{name: "count too low", script: answer(start, itemA, itemA, itemB, end2), want: stream.Protocol, reason: "counts 2 items, 3 came", items: 3},
		{name: "count without from", script: answer(`{N,"event":"start","id":"3"}`, itemA, `{N,"event":"end","id":"1"}`), from: 3, want: stream.Protocol, reason: "counts 1 items, 4 came", items: 1},

		{name: "overloaded", script: answer(`{N,"event":"overloaded","comment":["full","up"]}`), want: stream.Overloaded, reason: "overloaded: full; up"},
		{name: "overloaded connection", script: answer(`{"event":"overloaded","comment":["full"]}`), want: stream.Overloaded, reason: "full"},
		{name: "overloaded after the start", script: answer(start, `{N,"event":"overloaded"}`), want: stream.Overloaded},
		{name: "overloaded too late", script: answer(start, itemA, `{N,"event":"overloaded"}`), want: stream.Protocol, reason: "overloaded after an item", items: 1},
		{name: "overloaded after what came before", script: answer(`{N,"event":"start","id":"3"}`, `{N,"event":"overloaded"}`), from: 3, want: stream.Overloaded},
		{name: "unresumable", script: answer(`{N,"event":"unresumable","comment":["from the first only"]}`), from: 3, want: stream.Unresumable, reason: "unresumable: from the first only"},
		{name: "unresumable after the start", script: answer(`{N,"event":"start","id":"3"}`, `{N,"event":"unresumable"}`), from: 3, want: stream.Unresumable},
		{name: "unresumable too late", script: answer(`{N,"event":"start","id":"3"}`, itemA, `{N,"event":"unresumable"}`), from: 3, want: stream.Protocol, reason: "unresumable after an item", items: 1},
		{name: "misdirected", script: answer(`{N,"event":"misdirected","comment":["this is p/llm/embed/1f"]}`), want: stream.Misdirected, reason: "this is p/llm/embed/1f"},
		{name: "misdirected connection", script: answer(`{"event":"misdirected"}`), want: stream.Misdirected},
		{name: "misdirected after the start", script: answer(start, `{N,"event":"misdirected"}`), want: stream.Protocol, reason: "misdirected after the start"},
		{name: "a newer server's refusal", script: answer(`{N,"event":"sleeping","comment":["zzz"]}`), want: stream.Overloaded, reason: "sleeping: zzz"},
		{name: "with data", script: answer(`{N,"event":"sleeping","data":1}`), want: stream.Overloaded, reason: "sleeping"},
		{name: "a newer server's news", script: answer(`{"event":"news"}`, start, `{N,"event":"sleeping"}`, `{"event":"news"}`, itemA, itemB, end2), items: 2},
		{name: "start with data", script: answer(`{N,"event":"start","id":"0","data":{"x":1}}`, itemA, itemB, end2), items: 2},
		{name: "draining", script: answer(`{N,"event":"draining"}`), want: stream.Draining, reason: "no reason given"},
		{name: "draining midway", script: answer(start, itemA, `{N,"event":"draining","comment":["bye"]}`), want: stream.Draining, reason: "bye", items: 1},
		{name: "draining connection", script: answer(start, itemA, `{"event":"draining","comment":["bye"]}`), want: stream.Draining, reason: "bye", items: 1},
		{name: "failed", script: answer(start, itemA, `{N,"event":"error","comment":["Stream ended before generation completed"]}`), want: stream.Failed, items: 1},
		{name: "failed, and why", script: answer(start, itemA, `{N,"event":"error","comment":["Stream ended before generation completed","out of memory","on the GPU"]}`), want: stream.Failed, reason: "failed: out of memory; on the GPU", items: 1},
		{name: "not failed", script: answer(start, itemA, `{N,"event":"error","comment":["no","Stream ended before generation completed"]}`), want: stream.Application, items: 1},
		{name: "failed before the start", script: answer(`{N,"event":"error","comment":["Stream ended before generation completed"]}`), want: stream.Failed},
		{name: "application", script: answer(start, itemA, `{N,"event":"error","comment":["no such model"]}`), want: stream.Application, reason: "application: no such model", items: 1},
		{name: "application before the start", script: answer(`{N,"event":"error","comment":["no such model"]}`), want: stream.Application},
		{name: "not understood", script: answer(`{"event":"error","comment":["not a request"]}`), want: stream.Protocol, reason: "not a request"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newClient(t, &stream.Client{
					Dial:         scripted(t, tt.script),
					StartTimeout: tt.bounds.start, StallTimeout: tt.bounds.stall, ItemTimeout: tt.bounds.item,
				})
				begin := time.Now()
				got, err := items(t.Context(), c, "", stream.Request{Data: stream.String("x"), From: tt.from})
				if kindOf(err) != tt.want || len(got) != tt.items {
					t.Fatalf("got %q, %v, want %d items and %q", got, err, tt.items, tt.want)
				}
				if err != nil && !strings.Contains(err.Error(), tt.reason) {
					t.Errorf("%q does not say %q", err, tt.reason)
				}
				if took := time.Since(begin); took != tt.after {
					t.Errorf("noticed after %v, want %v", took, tt.after)
				}
			})
		})
	}
}

// pings answers with lines, then sends n pings, and closes.
func pings(every time.Duration, n int, lines ...string) func(*peer) {
	return func(p *peer) {
		p.answer(lines...)
		for range n {
			time.Sleep(every)
			p.say(`{"event":"ping"}`)
		}
	}
}

// forever answers with lines, then repeats one for ever.
func forever(line string, every time.Duration, lines ...string) func(*peer) {
	return func(p *peer) {
		p.answer(lines...)
		go p.hold()
		for {
			time.Sleep(every)
			if _, err := p.Write([]byte(strings.Replace(line, `{N`, `{"stream":1`, 1) + "\n")); err != nil {
				return
			}
		}
	}
}

// drip answers with lines, then sends a byte a second.
func drip(bytes string, lines ...string) func(*peer) {
	return func(p *peer) {
		p.answer(lines...)
		for i := range len(bytes) {
			time.Sleep(time.Second)
			if _, err := p.Write([]byte{bytes[i]}); err != nil {
				return
			}
		}
	}
}

// half answers with lines, then with a line that lacks its newline.
func half(last string, lines ...string) func(*peer) {
	return func(p *peer) {
		p.answer(lines...)
		_, _ = p.Write([]byte(last)) // the client's view is what is tested
	}
}

func TestReset(t *testing.T) {
	addr := listen(t, func(p *peer) {
		p.answer(start, itemA)
		p.request()                            // so the client has the item
		_ = p.Conn.(*net.TCPConn).SetLinger(0) // or it will show
	})
	c := newClient(t, &stream.Client{})
	var err error
	for _, err = range c.Stream(t.Context(), addr, text("x")) {
		if err == nil {
			go func() { _, _ = items(t.Context(), c, addr, text("y")) }() // only has to be sent
		}
	}
	if kindOf(err) != stream.Reset {
		t.Errorf("%v, want a reset", err)
	}
}

func TestBreakError(t *testing.T) {
	cause := errors.New("cause")
	var err error = &stream.Break{Kind: stream.Reset, Reason: "reason", Err: cause}
	if err.Error() != "reset: reason: cause" || !errors.Is(err, stream.Reset) || !errors.Is(err, cause) || errors.Is(err, stream.Truncated) {
		t.Errorf("%v", err)
	}
	err = fmt.Errorf("wrapped: %w", &stream.Break{Kind: stream.Stalled, Reason: "reason"})
	if err.Error() != "wrapped: stalled: reason" || !errors.Is(err, stream.Stalled) {
		t.Errorf("%v", err)
	}
}
