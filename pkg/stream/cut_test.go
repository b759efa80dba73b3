package stream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/fault"
)

var errReset = &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}

// recordings are whole streams as a real server sends them.
func recordings(t *testing.T) map[string][]byte {
	t.Helper()
	say := func(items ...stream.Annotated) stream.Handler {
		return func(_ context.Context, _ *stream.Request, send func(stream.Annotated) error) error {
			for _, item := range items {
				if err := send(item); err != nil {
					return err
				}
			}
			return nil
		}
	}
	others := say(
		stream.Annotated{Data: []byte(`{"a":[1,"}\n"],"event":"end","id":"1"}`)}, stream.Annotated{Data: []byte(`null`)},
		stream.Annotated{Data: []byte(`-1.5e3`)}, stream.Annotated{Data: []byte(`[]`), ID: "i", Event: "e", Comment: []string{"c", "d"}},
	)
	waits := func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		if err := stream.Echo("server1", 0)(ctx, req, send); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}
	fails := func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		if err := stream.Echo("server1", 0)(ctx, req, send); err != nil {
			return err
		}
		return errors.New("no more \"é\"\n👩 today")
	}
	return map[string][]byte{
		"ascii":        record(t, echo("server1"), `{"stream":1,"data":"hello"}`, 0),
		"empty":        record(t, echo("server1"), `{"stream":1,"data":""}`, 0),
		"escapes":      record(t, echo("server1"), `{"stream":1,"data":"\"\\\n\u0000/</"}`, 0),
		"emoji":        record(t, echo("s"), `{"stream":1,"data":"👩‍👧é"}`, 0),
		"resumed":      record(t, echo("s"), `{"stream":1,"data":"hello","from":3}`, 0),
		"no strings":   record(t, &stream.Server{Handler: others}, `{"stream":1,"data":1}`, 0),
		"failed":       record(t, faulty(fault.Fault{Mode: fault.Always, After: 2}), `{"stream":1,"data":"hello"}`, 0),
		"application":  record(t, &stream.Server{Handler: fails}, `{"stream":1,"data":"hi"}`, 0),
		"draining":     record(t, &stream.Server{Handler: waits}, `{"stream":1,"data":"hi"}`, 3),
		"overloaded":   record(t, faulty(fault.Fault{Mode: fault.Always, Kind: fault.Overload}), `{"stream":1,"data":"hi"}`, 0),
		"wrong number": record(t, faulty(fault.Fault{Mode: fault.Always, Kind: fault.BadCount}), `{"stream":1,"data":"hi"}`, 0),
	}
}

// TestCut plays recorded streams, cut at every byte.
func TestCut(t *testing.T) {
	t.Parallel()
	for name, said := range recordings(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from := 0
			if name == "resumed" {
				from = 3
			}
			for cut := range len(said) + 1 {
				for i, end := range []error{io.EOF, errReset} {
					lost := []stream.Kind{stream.Truncated, stream.Reset}[i]
					want, kind := meaning(t, said[:cut], lost)
					if name == "wrong number" && kind == "" {
						kind = stream.Protocol
					}
					tape := play(said[:cut], len(said), end)
					if cut%2 == i { // in pieces, the last of which comes with the end
						tape.piece, tape.early = 7, true
					}
					checkPlayed(t, tape, from, want, kind, fmt.Sprintf("cut at %d of %d with %v", cut, len(said), end))
				}
			}
		})
	}
}

// TestCutLong cuts a stream that is longer than any buffer and any credit.
func TestCutLong(t *testing.T) {
	s := &stream.Server{Handler: many(7000)}
	p := dialPeer(t, serve(t, s))
	p.say(`{"stream":1,"data":"x"}`, `{"stream":1,"event":"credit","id":"1000000"}`)
	var said []byte
	for over := false; !over; {
		line, err := p.r.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		said = append(said, line...)
		over, _ = lastWord(t, line)
	}
	for cut := 0; cut < len(said); cut += 79_999 {
		want, kind := meaning(t, said[:cut], stream.Truncated)
		checkPlayed(t, play(said[:cut], 8191, io.EOF), 0, want, kind, fmt.Sprintf("cut at %d", cut))
	}
	want, kind := meaning(t, said, stream.Truncated)
	checkPlayed(t, play(said, 8191, nil), 0, want, kind, "whole")
}

func checkPlayed(t *testing.T, tape *tape, from int, want []string, kind stream.Kind, what string) {
	t.Helper()
	c := &stream.Client{Dial: tape.dial}
	defer c.Close()
	got, err := items(t.Context(), c, "", stream.Request{Data: stream.String("hello"), From: from})
	if kindOf(err) != kind || !slices.Equal(got, want) {
		t.Fatalf("%s: got %d items %.80q, %v, want %d and %q", what, len(got), got, err, len(want), kind)
	}
}

// TestCutTwoStreams cuts a connection that carries two streams at every byte.
func TestCutTwoStreams(t *testing.T) {
	lines := func(asked []asked) []byte {
		n := map[string]int{}
		for _, a := range asked {
			n[string(a.Data)] = a.Stream
		}
		one, two := n[`"one"`], n[`"two"`]
		var b strings.Builder
		for _, line := range []struct {
			n    int
			rest string
		}{
			{one, `"event":"start","id":"0"`}, {two, `"event":"start","id":"0"`},
			{one, `"data":"1a"`}, {two, `"data":"2a"`}, {two, `"data":{"2":"b"}`}, {one, `"data":"1b"`},
			{two, `"event":"end","id":"2"`}, {one, `"data":"1c"`}, {one, `"event":"end","id":"3"`},
		} {
			fmt.Fprintf(&b, "{\"stream\":%d,%s}\n", line.n, line.rest)
		}
		return []byte(b.String())
	}
	whole := lines([]asked{{Stream: 1, Data: []byte(`"one"`)}, {Stream: 2, Data: []byte(`"two"`)}})
	for cut := range len(whole) + 1 {
		tape := playTo(2, func(asked []asked) []byte { return lines(asked)[:cut] }, len(whole), io.EOF)
		var dials atomic.Int32
		c := &stream.Client{Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			if dials.Add(1) > 1 {
				return nil, errors.New("refused")
			}
			return tape.dial(ctx, addr)
		}}
		done := make(chan bool)
		for n, name := range map[string]string{"1": "one", "2": "two"} {
			go func() {
				defer func() { done <- true }()
				var mine []byte
				for line := range strings.Lines(string(whole[:cut])) {
					if strings.Contains(line, `{"stream":`+n) {
						mine = append(mine, line...)
					}
				}
				if i := strings.LastIndexByte(string(mine), '\n'); i < len(mine)-1 {
					mine = mine[:i+1]
				}
				want, kind := meaning(t, mine, stream.Truncated)
				got, err := items(t.Context(), c, "", text(name))
				if len(mine) == 0 && kindOf(err) == stream.Unreachable {
					return // it came second and has seen nothing: it tries a fresh connection
				}
				if kindOf(err) != kind || !slices.Equal(got, want) {
					t.Errorf("cut at %d: stream %s: got %q, %v, want %q and %q", cut, name, got, err, want, kind)
				}
			}()
		}
		<-done
		<-done
		c.Close()
	}
}

// TestCutSocket does on real sockets what TestCut does in memory.
func TestCutSocket(t *testing.T) {
	said := record(t, echo("server1"), `{"stream":1,"data":"hello"}`, 0)
	for _, reset := range []bool{false, true} {
		lost := map[bool]stream.Kind{false: stream.Truncated, true: stream.Reset}[reset]
		cuts := make(chan int, 1)
		addr := listen(t, func(p *peer) {
			if _, ok := p.request(); !ok {
				return
			}
			_, _ = p.Write(said[:<-cuts]) // the client's view is what is tested
			if reset {
				_ = p.Conn.(*net.TCPConn).SetLinger(0) // or it will show
			}
		})
		for cut := 0; cut <= len(said); cut += 3 {
			c := &stream.Client{StartTimeout: patience, StallTimeout: patience}
			cuts <- cut
			got, err := collect(t, c, addr, text("hello"))
			c.Close()
			want, kind := meaning(t, said[:cut], lost)
			// A reset may overtake what was sent, but not the reverse.
			if reset && kindOf(err) == lost && len(got) <= len("hello") && got == "hello"[:len(got)] {
				continue
			}
			if kindOf(err) != kind || len(got) != len(want) {
				t.Fatalf("cut at %d, reset %v: got %q, %v, want %d items and %q", cut, reset, got, err, len(want), kind)
			}
		}
	}
}
