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

// skip makes it look as if the process had not run for the last d.
func (p *pulse) skip(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.due = p.due.Add(-d)
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
		p.skip(pulseOverdue) // a busy machine
		if woke := p.wokeAt(time.Now()); !woke.IsZero() {
			t.Errorf("a late beat is taken for a pause: %v", woke)
		}
		p.skip(slowBeat)
		paused := time.Now()
		for range 2 { // at the moment itself, and as noted
			if woke := p.wokeAt(time.Now()); !woke.Equal(paused) {
				t.Errorf("the pause was over at %v, want %v", woke, paused)
			}
			time.Sleep(time.Minute)
		}
		p.skip(time.Hour)
		time.Sleep(slowBeat + quickBeat) // the beat notices it too
		if woke := p.wokeAt(time.Now()); time.Since(woke) > slowBeat+quickBeat {
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

// Beats are slow and at whole seconds while nothing moves, and quick again as
// soon as something does. A pause of 500 ms is noticed while they are quick, and
// one that is 250 ms longer than a slow beat while they are slow.
func TestPulseRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pulse
		p.begin(false)
		defer p.end()
		due := func() time.Time {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.due
		}
		in := func(d time.Duration) {
			t.Helper()
			if got := time.Until(due()); got != d {
				t.Errorf("the next beat is due in %v, want %v", got, d)
			}
		}
		in(quickBeat)
		time.Sleep(restAfter + time.Millisecond)
		in(quickBeat - time.Millisecond)
		time.Sleep(quickBeat)
		in(3*quickBeat - time.Millisecond)
		time.Sleep(time.Hour)
		if at := due(); !at.Equal(at.Truncate(time.Second)) {
			t.Errorf("a slow beat is due at %v", at)
		}
		p.skip(slowBeat + pulseOverdue) // it shows when something moves
		p.moves()
		in(quickBeat)
		if woke := p.wokeAt(time.Now()); !woke.Equal(time.Now()) {
			t.Errorf("the pause was over at %v, want now", woke)
		}
		time.Sleep(time.Minute)
		p.moves()
		noticed := p.wokeAt(time.Now())
		p.skip(2*pulseOverdue + 1)
		if woke := p.wokeAt(time.Now()); woke.Equal(noticed) {
			t.Error("a pause of 500 ms was not noticed between quick beats")
		}
	})
}

// Bounds that are short beside a slow beat keep beats quick.
func TestRestlessPulse(t *testing.T) {
	for _, tt := range []struct {
		client *Client
		want   bool
	}{
		{&Client{}, false},
		{&Client{ItemTimeout: 30 * time.Second}, false},
		{&Client{ItemTimeout: 3 * time.Second}, true},
		{&Client{StallTimeout: 6 * time.Second}, true},
	} {
		if got := tt.client.restless(); got != tt.want {
			t.Errorf("item timeout %v, stall timeout %v: restless is %v", tt.client.ItemTimeout, tt.client.StallTimeout, got)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		var p pulse
		p.begin(true)
		defer p.end()
		time.Sleep(time.Hour)
		p.mu.Lock()
		defer p.mu.Unlock()
		if left := time.Until(p.due); left > quickBeat {
			t.Errorf("the next beat is due in %v", left)
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
		{"closed a second after", pauseEcho + slowBeat, shut, Truncated, false},
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
				if took := time.Since(begin); !ok || b.Kind != tt.want || b.Paused || took < tt.bound || took > tt.bound+slowBeat+quickBeat {
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
