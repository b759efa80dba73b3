package stream_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// Ping distinguishes a server that lives, a server that is another one, and one
// that does not answer.
func TestClientPing(t *testing.T) {
	// asks checks what the client sends and returns the server's answer.
	asks := func(lines ...string) func(*peer) {
		return func(p *peer) {
			p.expect(`{"event":"ping","to":"p/llm/chat/4d2"}`)
			p.say(lines...)
			p.hold()
		}
	}
	for name, tt := range map[string]struct {
		script func(*peer)
		want   stream.Kind
		after  time.Duration
	}{
		"lives":        {asks(`{"event":"ping"}`), "", 0},
		"lives late":   {func(p *peer) { time.Sleep(1999 * time.Millisecond); asks(`{"event":"ping"}`)(p) }, "", 1999 * time.Millisecond},
		"news first":   {asks(`{"event":"news"}`, `{"event":"ping"}`), "", 0},
		"another":      {asks(`{"event":"misdirected","comment":["this is p/llm/embed/1f"]}`), stream.Misdirected, 0},
		"overloaded":   {asks(`{"event":"overloaded"}`), stream.Overloaded, 0},
		"draining":     {asks(`{"event":"draining"}`), stream.Draining, 0},
		"of before":    {asks(), stream.Unresponsive, 2 * time.Second},
		"no server":    {asks("HTTP/1.1 400 Bad Request\r"), stream.Protocol, 0},
		"not asked":    {asks(`{"stream":1,"event":"ping"}`), stream.Protocol, 0},
		"not a ping":   {asks(`{"event":"error","comment":["not a request"]}`), stream.Protocol, 0},
		"closed":       {func(p *peer) { p.expect(`{"event":"ping","to":"p/llm/chat/4d2"}`) }, stream.Truncated, 0},
		"nobody there": {nil, stream.Unreachable, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &stream.Client{Dial: scripted(t)}
				if tt.script != nil {
					c.Dial = scripted(t, tt.script)
				}
				newClient(t, c)
				begin := time.Now()
				err := c.Ping(t.Context(), "there", "p/llm/chat/4d2")
				if took := time.Since(begin); kindOf(err) != tt.want || took != tt.after {
					t.Errorf("%v after %v, want %q after %v", err, took, tt.want, tt.after)
				}
				if got := c.SaidDraining("there"); got != (tt.want == stream.Draining) {
					t.Errorf("said draining: %v", got)
				}
			})
		})
	}
}

// A ping ends with its context and with the client.
func TestClientPingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, &stream.Client{Dial: scripted(t, (*peer).hold, (*peer).hold)})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Ping(ctx, "", ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want the deadline", err)
		}
		begin := time.Now()
		time.AfterFunc(time.Second, c.Close)
		if err := c.Ping(t.Context(), "", ""); !errors.Is(err, stream.ErrClosed) || time.Since(begin) != time.Second {
			t.Errorf("%v after %v, want ErrClosed after 1s", err, time.Since(begin))
		}
		if err := c.Ping(t.Context(), "", ""); !errors.Is(err, stream.ErrClosed) {
			t.Errorf("%v, want ErrClosed", err)
		}
	})
}

// A client remembers for ten minutes that a server said draining, on any
// connection, unless a new one is made.
func TestSaidDraining(t *testing.T) {
	whole := []string{start, itemA, itemB, end2}
	for name, tt := range map[string]struct {
		script func(*peer)
		want   stream.Kind
	}{
		"refused":     {answer(`{N,"event":"draining"}`), stream.Draining},
		"handed back": {answer(start, itemA, `{N,"event":"draining"}`), stream.Draining},
		"connection":  {answer(start, `{"event":"draining"}`), stream.Draining},
		"idle":        {func(p *peer) { p.answer(whole...); time.Sleep(time.Second); p.say(`{"event":"draining"}`) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newClient(t, &stream.Client{Dial: scripted(t, tt.script, answer(whole...))})
				ask := func(want stream.Kind) {
					if _, err := items(t.Context(), c, "a", text("x")); kindOf(err) != want {
						t.Errorf("%v, want %q", err, want)
					}
				}
				said := func(addr string, want bool) {
					t.Helper()
					if got := c.SaidDraining(addr); got != want {
						t.Errorf("after %s said draining: %v", addr, got)
					}
				}
				said("a", false)
				ask(tt.want)
				time.Sleep(2 * time.Second)
				said("a", true)
				said("b", false)
				time.Sleep(9 * time.Minute)
				said("a", true)
				if name == "idle" { // the kept connection is closed: a new one is made
					ask("")
					said("a", false)
				}
				time.Sleep(2 * time.Minute)
				said("a", false)
			})
		})
	}
}
