package router

import (
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// Trace is a set of functions that follow a request: one request as
// [Request.Trace], every request of a router by [Config.Trace]. Any function may be
// nil. They are called one at a time, in the order of events, by the goroutine that
// ranges over the sequence of [Router.Do] (with [Request.Ping] by another, but never
// while the body of the loop runs), and the request waits for them.
type Trace struct {
	// Attempt is called when an attempt begins, before an instance is chosen.
	Attempt func(AttemptEvent)
	// Chosen is called when the request is about to go to an instance: once
	// an attempt, and again after each refusal.
	Chosen func(ChosenEvent)
	// Item is called for each item before it is yielded.
	Item func(Item)
	// Stale is called when a kept connection to the chosen instance turned out
	// dead and was replaced. It is not an attempt, and not reported.
	Stale func(StaleEvent)
	// Refused is called when an instance does not take the request: it is
	// overloaded, is draining, is not the one that was meant, or can't begin at
	// the item wanted. The attempt goes on at another instance.
	Refused func(BreakEvent)
	// Break is called when a stream has broken.
	Break func(BreakEvent)
	// Down is called when the break puts its instance down.
	Down func(Down)
	// Done is called once, when the request is over, however it ends: also when the
	// caller leaves the sequence, or panics.
	Done func(DoneEvent)
}

// AttemptEvent says that an attempt begins.
type AttemptEvent struct {
	Request string // its id
	Attempt int    // from 1
	From    int    // index of the first item wanted
}

// ChosenEvent says where a request goes.
type ChosenEvent struct {
	Attempt  int
	Instance discovery.Instance
	Step     Step // why this instance
	Way      Way  // how the answer is carried on; "" for an answer that is asked for the first time
	Trial    bool // the instance is half-open, and this request tries it
}

// StaleEvent says that a kept connection was replaced.
type StaleEvent struct {
	Attempt  int
	Instance discovery.Instance
}

// BreakEvent says how a stream broke, or why it was refused.
type BreakEvent struct {
	Attempt  int
	Instance discovery.Instance
	Err      error
	Reported bool // the instance is reported down
	// AttemptsLeft is how many attempts the request has left, 0 if it goes no
	// further. There need not be an instance for them.
	AttemptsLeft int
	Time         time.Time
}

// Kind returns the kind of the break.
func (e BreakEvent) Kind() stream.Kind { return kindOf(e.Err) }

// DoneEvent says that a request is over.
type DoneEvent struct {
	Request string // its id
	Err     error  // nil if it is complete, [ErrLeft] if the caller has left
}

// Then returns a trace that calls t's functions and then next's. Either may be
// nil, and so are the functions that neither has.
func (t *Trace) Then(next *Trace) *Trace {
	switch {
	case t == nil:
		return next
	case next == nil:
		return t
	}
	return &Trace{
		Attempt: both(t.Attempt, next.Attempt),
		Chosen:  both(t.Chosen, next.Chosen),
		Item:    both(t.Item, next.Item),
		Stale:   both(t.Stale, next.Stale),
		Refused: both(t.Refused, next.Refused),
		Break:   both(t.Break, next.Break),
		Down:    both(t.Down, next.Down),
		Done:    both(t.Done, next.Done),
	}
}

func both[E any](first, second func(E)) func(E) {
	switch {
	case first == nil:
		return second
	case second == nil:
		return first
	}
	return func(e E) {
		first(e)
		second(e)
	}
}

// Locked returns a trace that calls t's functions with mu held, such as one that several
// requests share.
func (t *Trace) Locked(mu sync.Locker) *Trace {
	return &Trace{
		Attempt: locked(mu, t.Attempt),
		Chosen:  locked(mu, t.Chosen),
		Item:    locked(mu, t.Item),
		Stale:   locked(mu, t.Stale),
		Refused: locked(mu, t.Refused),
		Break:   locked(mu, t.Break),
		Down:    locked(mu, t.Down),
		Done:    locked(mu, t.Done),
	}
}

func locked[E any](mu sync.Locker, f func(E)) func(E) {
	if f == nil {
		return nil
	}
	return func(e E) {
		mu.Lock()
		defer mu.Unlock()
		f(e)
	}
}

// tell calls f unless it is nil.
func tell[E any](f func(E), e E) {
	if f != nil {
		f(e)
	}
}
