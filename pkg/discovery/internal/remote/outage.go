package remote

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"
	"unicode"
)

// NoAnswer is the cause with which the context of a request ends when there was no answer
// for so long.
type NoAnswer time.Duration

// Error says within which time there was no answer.
func (e NoAnswer) Error() string { return fmt.Sprintf("no answer within %v", time.Duration(e)) }

// PlainError has a text for people and unwraps to the original error.
type PlainError struct {
	Text string
	Err  error
}

// Error returns the text.
func (e *PlainError) Error() string { return e.Text }

// Unwrap returns the original error.
func (e *PlainError) Unwrap() error { return e.Err }

// A Backoff paces the tries during one outage: 100 ms, doubled each time, up to 1 s, so that
// the other end's return is noticed soon, or as long as it asks for. The zero Backoff is
// before the first try.
type Backoff struct{ last time.Duration }

// Next returns the pause before the next try. Half of it is random, so that a fleet which
// lost the other end at the same moment doesn't come back at the same moment. It is no
// shorter than asked, to which up to a tenth is added.
func (b *Backoff) Next(asked time.Duration) time.Duration {
	b.last = min(max(2*b.last, 100*time.Millisecond), time.Second)
	pause := b.last/2 + rand.N(b.last/2)
	if asked > 0 {
		pause = max(pause, asked+rand.N(asked/10+1))
	}
	return pause
}

// Wait pauses, and returns false if ctx ended.
func (b *Backoff) Wait(ctx context.Context, asked time.Duration) bool {
	timer := time.NewTimer(b.Next(asked))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Causes has the kinds of causes of one outage that have been reported. The zero Causes is
// empty.
type Causes map[string]struct{}

// Add adds a kind, and reports whether it is new.
func (c *Causes) Add(kind string) bool {
	if _, told := (*c)[kind]; told {
		return false
	}
	if *c == nil {
		*c = make(Causes)
	}
	(*c)[kind] = struct{}{}
	return true
}

// KindOf returns one kind for everything that an absent other end may look like, which
// differs from try to try, and otherwise the text of err without numbers such as times and
// ports.
func KindOf(err error, away bool) string {
	if away {
		return "away"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, err.Error())
}

// An Outage logs failed renewals: one warning for each kind of cause, and one line when it
// has ended. Log and Store are required.
type Outage struct {
	Log   *slog.Logger
	Store string // its name for people

	since  time.Time // zero while all is well
	tries  int
	warned bool
	told   Causes
	pause  Backoff
}

// Failed notes that a renewal failed for a cause of that kind, and returns the pause before
// the next, asked at least. A single failure may be hidden at debug level: one member of
// several that restarts.
func (o *Outage) Failed(err error, kind string, hidden bool, asked time.Duration) time.Duration {
	if o.tries++; o.since.IsZero() {
		o.since = time.Now()
	}
	switch {
	case o.tries == 1 && hidden:
		o.Log.Debug("renewal failed, trying again", "error", err)
	case o.told.Add(kind):
		o.warned = true
		o.Log.Warn("can't keep the registration in "+o.Store+", trying until it is back", "error", err)
	default:
		o.Log.Debug("renewal failed again", "error", err, "tries", o.tries)
	}
	return o.pause.Next(asked)
}

// Lost notes that the other end has dropped what is renewed, a cause of that kind, and logs
// it as a warning unless the outage is known.
func (o *Outage) Lost(kind, known, news string) {
	if o.since.IsZero() {
		o.since = time.Now()
	}
	if o.warned {
		o.Log.Debug(known)
		return
	}
	o.warned = true
	o.told.Add(kind)
	o.Log.Warn(news)
}

// Ended notes that a renewal succeeded, and whether a record stands.
func (o *Outage) Ended(stands bool) {
	if o.warned && stands {
		o.Log.Info("registered in "+o.Store+" again", "after", time.Since(o.since).Round(time.Millisecond))
	}
	*o = Outage{Log: o.Log, Store: o.Store}
}
