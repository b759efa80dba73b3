package stream_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// A kept connection that brings no byte for a second after a request is
// replaced by a fresh one, once, and the Stale hook is called.
func TestForgottenConnectionIsReplaced(t *testing.T) {
	whole := []string{start, itemA, itemB, end2}
	kept := func(then ...func(*peer)) func(*peer) {
		return func(p *peer) {
			p.answer(whole...)
			p.request()
			go p.hold()
			for _, f := range then {
				f(p)
			}
			time.Sleep(time.Minute)
		}
	}
	say := func(after time.Duration, lines ...string) func(*peer) {
		return func(p *peer) { time.Sleep(after); p.say(lines...) }
	}
	start2 := []string{`{"stream":2,"event":"start","id":"0"}`, `{"stream":2,"event":"end","id":"0"}`}
	for name, tt := range map[string]struct {
		scripts []func(*peer)
		want    stream.Kind
		items   int
		after   time.Duration
		stale   int
	}{
		"forgotten":        {scripts: []func(*peer){kept(), answer(whole...)}, items: 2, after: time.Second, stale: 1},
		"and silent again": {scripts: []func(*peer){kept(), answer(), answer(whole...)}, want: stream.Unresponsive, after: 3 * time.Second, stale: 1},
		"nobody there":     {scripts: []func(*peer){kept()}, want: stream.Unreachable, after: time.Second, stale: 1},
		"just in time":     {scripts: []func(*peer){kept(say(time.Second-1, start2...))}, after: time.Second - 1},
		"lives, but slow":  {scripts: []func(*peer){kept(say(500*time.Millisecond, `{"event":"ping"}`), say(time.Second, start2...))}, after: 1500 * time.Millisecond},
		"lives, no start":  {scripts: []func(*peer){kept(say(500*time.Millisecond, `{"event":"ping"}`)), answer(whole...)}, want: stream.Unresponsive, after: 2 * time.Second},
		"started":          {scripts: []func(*peer){kept(say(0, start2[0]), say(10*time.Second, start2[1]))}, after: 10 * time.Second},
		"dead":             {scripts: []func(*peer){lastGasp, answer(whole...)}, items: 2, stale: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newClient(t, &stream.Client{Dial: scripted(t, tt.scripts...)})
				if got, err := items(t.Context(), c, "", text("x")); len(got) != 2 || err != nil {
					t.Fatalf("first: %q, %v", got, err)
				}
				time.Sleep(30 * time.Second)
				begin, stale := time.Now(), 0
				req := text("x")
				req.Hooks = &stream.Hooks{Stale: func() { stale++ }}
				got, err := items(t.Context(), c, "", req)
				if len(got) != tt.items || kindOf(err) != tt.want {
					t.Errorf("second: %q, %v, want %d items and %q", got, err, tt.items, tt.want)
				}
				if took := time.Since(begin); took != tt.after || stale != tt.stale {
					t.Errorf("%d replaced, after %v, want %d and %v", stale, took, tt.stale, tt.after)
				}
			})
		})
	}
}

// A fresh connection is given the full time, for later requests too.
func TestFreshConnectionIsNotReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, &stream.Client{Dial: scripted(t, answer())})
		done := make(chan error)
		for range 2 {
			go func() {
				req := text("x")
				req.Hooks = &stream.Hooks{Stale: func() { t.Error("a connection is replaced on which nothing ever came") }}
				_, err := items(t.Context(), c, "", req)
				done <- err
			}()
			synctest.Wait()
		}
		for range 2 {
			if err := <-done; kindOf(err) != stream.Unresponsive {
				t.Error(err)
			}
		}
	})
}
