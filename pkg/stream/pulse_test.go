package stream

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// skip makes it look as if the process should have run last a time d ago.
func (p *pulse) skip(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.due = time.Now().Add(-d)
}

// A pulse notices a gap, and beats only while requests run.
func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pulse
		p.begin(false)
		time.Sleep(10*time.Second + 100*time.Millisecond)
		if woke := p.wokeAt(time.Now()); !woke.IsZero() {
			t.Errorf("a pause was noticed that there was not: %v", woke)
		}
		p.skip(pulseOverdue - 50*time.Millisecond) // a busy machine
		if woke := p.wokeAt(time.Now()); !woke.IsZero() {
			t.Errorf("a late beat is taken for a pause: %v", woke)
		}
		p.skip(pulseOverdue + 1)
		paused := time.Now()
		for range 2 { // at the moment itself, and as noted
			if woke := p.wokeAt(time.Now()); !woke.Equal(paused) {
				t.Errorf("the pause was over at %v, want %v", woke, paused)
			}
			time.Sleep(time.Minute)
		}
		p.skip(time.Hour)
		time.Sleep(slowBeat) // the beat notices it too
		if woke := p.wokeAt(time.Now()); time.Since(woke) > slowBeat {
			t.Errorf("the second pause was over at %v, want within the last beat", woke)
		}
		p.end()
		time.Sleep(2 * slowBeat)
		if p.beating.Load() {
			t.Error("it beats though no request runs")
		}
		before := p.wokeAt(time.Now())
		time.Sleep(time.Hour)
		p.begin(false)
		defer p.end()
		if woke := p.wokeAt(time.Now()); !woke.Equal(before) {
			t.Error("time without requests is taken for a pause")
		}
	})
}

// The monotonic clock stops while a machine sleeps, the wall clock does not.
func TestPulseOfSleepingMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pulse
		p.begin(false)
		defer p.end()
		p.mu.Lock()
		p.due = p.due.Round(0).Add(-time.Hour) // by the wall clock alone
		p.mu.Unlock()
		if p.wokeAt(time.Now()).IsZero() {
			t.Error("an hour on the wall clock was not noticed")
		}
	})
}

// A break within a second after a pause is not attributed to the server, unless
// the server itself says that the stream failed.
func TestBreakAfterPause(t *testing.T) {
	line := func(s string) func(net.Conn) {
		return func(conn net.Conn) { _, _ = io.WriteString(conn, s+"\n") }
	}
	shut := func(conn net.Conn) { conn.Close() }
	for _, tt := range []struct {
		name  string
		after time.Duration
		end   func(net.Conn)
		want  Kind
		pause bool
	}{
		{"closed", 0, shut, Truncated, true},
		{"closed within a second", pauseEcho - 1, shut, Truncated, true},
		{"closed a second after", pauseEcho + quickBeat, shut, Truncated, false},
		{"failed", 0, line(`{"stream":1,"event":"error","comment":["` + failedText + `"]}`), Failed, false},
		{"garbage", 0, line("garbage"), Protocol, false},
		{"draining", 0, line(`{"event":"draining"}`), Draining, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, theirs := pausable(t)
				done := make(chan error, 1)
				go func() { done <- last(c.Stream(t.Context(), "", Request{Data: String("x")})) }()
				synctest.Wait()
				line(`{"stream":1,"event":"start","id":"0"}`)(theirs)
				c.pulse.skip(time.Minute)
				time.Sleep(tt.after)
				tt.end(theirs)
				b, ok := errors.AsType[*Break](<-done)
				if !ok || b.Kind != tt.want || b.Paused != tt.pause || b.NoReport != tt.pause {
					t.Errorf("%+v, want %s, paused %v", b, tt.want, tt.pause)
				}
			})
		})
	}
}

// A pause counts as nobody's silence: all times begin anew after it.
func TestPauseIsNoSilence(t *testing.T) {
	for name, tt := range map[string]struct {
		lines string
		bound time.Duration
		want  Kind
	}{
		"stall": {`{"stream":1,"event":"start","id":"0"}` + "\n", DefaultStallTimeout, Stalled},
		"start": {"", DefaultStartTimeout, Unresponsive},
		"item":  {`{"stream":1,"event":"start","id":"0"}` + "\n", 5 * time.Second, Stalled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, theirs := pausable(t)
				if name == "item" {
					c.ItemTimeout = tt.bound
				}
				done := make(chan error, 1)
				go func() { done <- last(c.Stream(t.Context(), "", Request{Data: String("x")})) }()
				synctest.Wait()
				_, _ = io.WriteString(theirs, tt.lines)
				time.Sleep(tt.bound - 100*time.Millisecond)
				c.pulse.skip(tt.bound)
				begin := time.Now()
				b, ok := errors.AsType[*Break](<-done)
				// The beat after it notices the pause.
				if took := time.Since(begin); !ok || b.Kind != tt.want || b.Paused || took < tt.bound || took > tt.bound+slowBeat {
					t.Errorf("%+v after %v, want %s after %v", b, took, tt.want, tt.bound)
				}
			})
		})
	}
}

// pausable returns a client and the server's end of its connection, from which
// what the client sends is read.
func pausable(t *testing.T) (*Client, net.Conn) {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	c := &Client{Dial: func(context.Context, string) (net.Conn, error) { return ours, nil }}
	t.Cleanup(func() {
		c.Close()
		theirs.Close()
	})
	return c, theirs
}

// last returns the error that ends a sequence.
func last(seq func(func(Annotated, error) bool)) (err error) {
	for _, err = range seq {
	}
	return err
}

// Lines that are there take precedence over a timer that has run out.
func TestLinesBeforeTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, theirs := pausable(t)
		conn := newClientConn(c, "", theirs)
		defer conn.fail(ErrClosed)
		for range 100 { // a select chooses at random
			st := newClientStream(conn, 1, &outgoing{})
			st.startWaiting()
			if lines, err := st.take(nil); lines != nil || err != nil {
				t.Fatalf("%v, %v", lines, err)
			}
			if err := st.push([]byte("{}\n")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			st.looked = true // no second look helps
			if err := st.wait(t.Context()); err != nil {
				t.Fatalf("lines were there: %v", err)
			}
			if lines, err := st.take(nil); lines == nil || err != nil {
				t.Fatalf("%v, %v, want lines", lines, err)
			}
		}
	})
}

// Beats are quick while streams move or a bound is short, and slow, at whole seconds,
// while nothing comes.
func TestPulseRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := func(p *pulse) time.Duration {
			p.mu.Lock()
			defer p.mu.Unlock()
			return time.Until(p.due)
		}
		var calm, restless pulse
		calm.begin(false)
		restless.begin(true)
		defer calm.end()
		defer restless.end()
		time.Sleep(restAfter + slowBeat + 100*time.Millisecond)
		synctest.Wait()
		if d := next(&calm); d != 900*time.Millisecond {
			t.Errorf("in silence the next beat is due in %v, want at the next whole second", d)
		}
		calm.moves()
		for _, p := range []*pulse{&calm, &restless} {
			if d := next(p); d <= 0 || d > quickBeat {
				t.Errorf("the next beat is due in %v, want %v at most", d, quickBeat)
			}
		}
	})
}
