package router

import (
	"context"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// Trace is a set of functions that follow a request. Any may be nil. They are
// called one at a time, in the order of events, by the goroutine that ranges
// over [Router.Do]'s sequence, which waits for them.
type Trace struct {
	// Attempt is called when an attempt begins, before an instance is chosen.
	Attempt func(AttemptEvent)
	// Chosen is called when the request is about to go to an instance: once
	// an attempt, and again after each refusal.
	Chosen func(ChosenEvent)
	// Item is called for each item before it is yielded.
	Item func(Item)
	// Stale is called when a kept connection to the chosen instance turned out
	// dead and was replaced, which is no attempt and nobody's fault.
	Stale func(StaleEvent)
	// Refused is called when an instance does not take the request, being
	// overloaded or about to leave, or not the one that was meant, or because it
	// can't begin at the item wanted. The attempt goes on elsewhere.
	Refused func(BreakEvent)
	// Break is called when a stream has broken.
	Break func(BreakEvent)
	// Down is called when the break puts its instance down.
	Down func(Down)
	// Done is called at the end, unless the caller has left the sequence.
	Done func(DoneEvent)
}

// AttemptEvent tells that an attempt begins.
type AttemptEvent struct {
	Request string // its id
	Attempt int    // from 1
	From    int    // index of the first item wanted
}

// ChosenEvent tells where a request goes.
type ChosenEvent struct {
	Attempt  int
	Instance discovery.Instance
	Step     Step // why this one
	Trial    bool // it is half-open, and this request tries it
}

// StaleEvent tells of a kept connection that was replaced.
type StaleEvent struct {
	Attempt  int
	Instance discovery.Instance
}

// BreakEvent tells how a stream ended that did not end well.
type BreakEvent struct {
	Attempt  int
	Instance discovery.Instance
	Err      error
	Reported bool // the instance is blamed
	// AttemptsLeft is how many attempts the request has left, for which there
	// need not be an instance; 0 if it goes no further.
	AttemptsLeft int
	Time         time.Time
}

// Kind returns the kind of the break.
func (e BreakEvent) Kind() stream.Kind { return kindOf(e.Err) }

// DoneEvent tells that a request is over.
type DoneEvent struct {
	Request string // its id
	Err     error  // nil if it is complete
}

type traceKey struct{}

// WithTrace returns a context whose requests t follows. If ctx has a trace
// already, both are called, t's functions last.
func WithTrace(ctx context.Context, t *Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, joined(contextTrace(ctx), t))
}

// joined returns a trace that calls both, either of which may be nil.
func joined(first, second *Trace) *Trace {
	switch {
	case first == nil:
		return second
	case second == nil:
		return first
	}
	return &Trace{
		Attempt: both(first.Attempt, second.Attempt),
		Chosen:  both(first.Chosen, second.Chosen),
		Item:    both(first.Item, second.Item),
		Stale:   both(first.Stale, second.Stale),
		Refused: both(first.Refused, second.Refused),
		Break:   both(first.Break, second.Break),
		Down:    both(first.Down, second.Down),
		Done:    both(first.Done, second.Done),
	}
}

func contextTrace(ctx context.Context) *Trace {
	t, _ := ctx.Value(traceKey{}).(*Trace)
	return t
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

// tell calls f unless it is nil.
func tell[E any](f func(E), e E) {
	if f != nil {
		f(e)
	}
}
