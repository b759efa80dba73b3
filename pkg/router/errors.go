package router

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

var (
	// ErrNoInstances matches a [NoInstancesError].
	ErrNoInstances = errors.New("no instances found")
	// ErrAttemptsUsedUp matches an [AttemptsError] whose request has used its
	// last attempt.
	ErrAttemptsUsedUp = errors.New("attempts used up")
	// ErrOverloaded matches an [OverloadedError].
	ErrOverloaded = errors.New("all instances are overloaded")
	// ErrCannotResume matches a [CannotResumeError].
	ErrCannotResume = errors.New("cannot carry on")
	// ErrClosed is the error of requests of a router, or of its client, that was closed.
	ErrClosed = stream.ErrClosed
	// ErrLeft is the end of a request whose caller has left the sequence, for
	// [Trace.Done].
	ErrLeft = errors.New("the caller has left the sequence")
)

// maxKnown is how many instances an error lists: ten, about as many as a person reads.
const maxKnown = 10

// NoInstancesError says that no instance is left for a request, and why.
type NoInstancesError struct {
	Endpoint discovery.Endpoint
	// Where is where discovery looks, in words: [Config.Where].
	Where string
	// Wanted is the name or id that the request asked for, if no instance has
	// it; Known are the instances there are.
	Wanted string
	Known  []string
	// Source is how many instances discovery lists, Down how many of them are
	// down, Tried at how many of the others the request has broken, and
	// BackingOff how many back off after they refused other requests.
	Source, Down, Tried, BackingOff int
	// Unroutable is how many instances discovery lists to which requests cannot be
	// sent, by their transport; they are not in Source.
	Unroutable map[string]int
	// Declined says that the picker has returned nil for those that were left.
	Declined bool
	// Refused is how many instances did not take the request, or handed it back, by kind.
	Refused map[stream.Kind]int
	// Next is the time until the first of those that are down returns.
	Next time.Duration
	// Waited is how long the request has waited for an instance.
	Waited time.Duration
	// Stale says why discovery can't be read now, nil if it can. There may be
	// more instances than it listed last.
	Stale error
}

// Error says how many instances there are, and why the request goes to none of them.
func (e *NoInstancesError) Error() string {
	return fmt.Sprintf("%v for endpoint %v (%s)", ErrNoInstances, e.Endpoint, e.why())
}

func (e *NoInstancesError) why() string {
	var why []string
	add := func(format string, args ...any) { why = append(why, fmt.Sprintf(format, args...)) }
	switch {
	case e.Wanted != "":
		add("none is called %q, %s", e.Wanted, e.known())
	case e.Source > 0 || len(e.Unroutable) == 0:
		add("%d in source", e.Source)
	}
	for _, transport := range slices.Sorted(maps.Keys(e.Unroutable)) {
		if n := e.Unroutable[transport]; transport != discovery.NDJSON {
			add("%d of another transport: %s", n, transport)
		} else {
			add("%d not routable", n)
		}
	}
	if e.Source == 0 && e.Where != "" {
		add("looked in %s", e.Where)
	}
	if e.Down > 0 {
		add("%d down, the next returns in %v", e.Down, e.Next.Round(100*time.Millisecond))
	}
	if e.Tried > 0 {
		add("%d tried already", e.Tried)
	}
	if e.BackingOff > 0 {
		add("%d backing off", e.BackingOff)
	}
	for _, kind := range slices.Sorted(maps.Keys(e.Refused)) {
		add("%d refused as %s", e.Refused[kind], kind)
	}
	if e.Declined {
		add("the picker takes none of them")
	}
	if e.Waited > 0 {
		add("after waiting %v", e.Waited)
	}
	if e.Stale != nil {
		add("discovery can't be read: %v", e.Stale)
	}
	return strings.Join(why, ", ")
}

func (e *NoInstancesError) known() string {
	n := len(e.Known)
	if n == 0 {
		return "there is none"
	}
	known := "there are " + strings.Join(e.Known[:min(n, maxKnown)], ", ")
	if n > maxKnown {
		known += fmt.Sprintf(" and %d more", n-maxKnown)
	}
	return known
}

// Is reports whether target is [ErrNoInstances], or the kind of a refusal.
func (e *NoInstancesError) Is(target error) bool {
	kind, ok := target.(stream.Kind)
	return target == ErrNoInstances || ok && e.Refused[kind] > 0
}

// OverloadedError says that no instance is left for a request, and that some have
// refused it as overloaded since its last item. These are not down.
type OverloadedError struct {
	// All says that every instance that was asked refused as overloaded.
	All bool
	// Next is the time until the first of these backoffs ends.
	Next time.Duration
	// Others says what other instances there are.
	Others *NoInstancesError
}

// Error says whether all are overloaded, and when the first backoff ends.
func (e *OverloadedError) Error() string {
	next := fmt.Sprintf("the first backoff ends in %v", e.Next.Round(100*time.Millisecond))
	if e.All {
		return fmt.Sprintf("%v (%s)", ErrOverloaded, next)
	}
	return fmt.Sprintf("instances of endpoint %v are overloaded, and no other is left (%s, %s)", e.Others.Endpoint, e.Others.why(), next)
}

// Is reports whether target is [ErrOverloaded], or the kind of a refusal.
func (e *OverloadedError) Is(target error) bool {
	kind, ok := target.(stream.Kind)
	return target == ErrOverloaded || ok && e.Others.Refused[kind] > 0
}

// CannotResumeError says that an answer that has begun cannot be carried on, though
// instances are left, or that the answer which began anew was a different one.
type CannotResumeError struct {
	Endpoint discovery.Endpoint
	// Item is the index of the first item that the caller lacks.
	Item int
	// Unresumable is how many instances are left that cannot go on there.
	Unresumable int
	// Why says in words why nobody goes on.
	Why string
}

// Error says at which item the answer stands, and why nobody goes on.
func (e *CannotResumeError) Error() string {
	return fmt.Sprintf("%v at item %d of an answer of endpoint %v: %s", ErrCannotResume, e.Item, e.Endpoint, e.Why)
}

// Is reports whether target is [ErrCannotResume] or [stream.Unresumable].
func (e *CannotResumeError) Is(target error) bool {
	return target == ErrCannotResume || target == stream.Unresumable
}

// nobodyLeft returns the error of a request that can go to no instance of t.
func (c *call) nobodyLeft(t *Tiers, waited time.Duration) error {
	none := c.noInstances(t, waited)
	if c.overloads > 0 {
		err := &OverloadedError{All: none.Refused[stream.Overloaded] == len(c.tried), Next: maxBackoff, Others: none}
		for _, o := range c.tried {
			if errors.Is(o.err, stream.Overloaded) {
				err.Next = min(err.Next, max(time.Until(o.again), 0))
			}
		}
		return err
	}
	if n := c.unresumable(t); n > 0 || c.hasDivergedLast() {
		return c.cannotResume(n)
	}
	return none
}

// cannotResume returns the error of an answer that nobody can carry on, though n
// instances are left.
func (c *call) cannotResume(n int) error {
	return &CannotResumeError{Endpoint: c.r.cfg.Endpoint, Item: c.from, Unresumable: n, Why: c.carry.whyNot(n)}
}

func (c *call) closed() error {
	return fmt.Errorf("router of endpoint %v: %w", c.r.cfg.Endpoint, ErrClosed)
}

// hasDivergedLast reports whether the newest break was an answer that differed.
func (c *call) hasDivergedLast() bool {
	return len(c.failed) > 0 && errors.Is(c.failed[len(c.failed)-1], stream.Diverged)
}

// noInstances says which instances there are in t.
func (c *call) noInstances(t *Tiers, waited time.Duration) *NoInstancesError {
	err := &NoInstancesError{
		Endpoint: c.r.cfg.Endpoint, Where: c.r.cfg.Where, Source: len(t.Source), Waited: waited, Stale: t.Stale,
		Declined: c.declined,
	}
	for _, i := range t.Unroutable {
		if err.Unroutable == nil {
			err.Unroutable = make(map[string]int)
		}
		err.Unroutable[i.Transport]++
	}
	var next time.Time
	for id, d := range t.Down {
		if t.byID(id) == nil {
			continue
		}
		err.Down++
		if next.IsZero() || d.Until.Before(next) {
			next = d.Until
		}
	}
	if err.Down > 0 {
		err.Next = max(time.Until(next), 0)
	}
	err.BackingOff = t.BackingOff
	for id, o := range c.tried {
		if p := t.byID(id.id); p != nil && p.identity() == id && p.isBackingOff(c.r.tiers.clock()) {
			err.BackingOff-- // it is counted as one that refused, or as tried
		}
		_, down := t.Down[id.id]
		switch p := t.byID(id.id); {
		case o.refused || o.kind == stream.Draining: // the stream may have been handed back midway
			if err.Refused == nil {
				err.Refused = make(map[stream.Kind]int)
			}
			err.Refused[kindOf(o.err)]++
		case p != nil && p.identity() == id && !down:
			err.Tried++
		}
	}
	return err
}

// unresumable returns how many instances of t are up and cannot carry on the answer.
func (c *call) unresumable(t *Tiers) (n int) {
	if c.carry.next == 0 {
		return 0
	}
	for _, p := range t.Source {
		o, tried := c.tried[p.identity()]
		if !p.is(isDown) && (!tried && c.wayOf(p) == "" || o.kind == stream.Unresumable) {
			n++
		}
	}
	return n
}

// AttemptError is one attempt that failed.
type AttemptError struct {
	Attempt  int
	Instance discovery.Instance
	Err      error
}

// Error names the attempt, the instance and the cause.
func (e *AttemptError) Error() string {
	return fmt.Sprintf("attempt %d at %s: %v", e.Attempt, label(e.Instance), e.Err)
}

// Unwrap returns the cause. It does not match the errors of contexts.
func (e *AttemptError) Unwrap() error { return inner{e.Err} }

// inner is an error within one of a request. It matches all that the error does but
// the errors of contexts: those of the caller's context are what it asks for, and a dial
// that timed out is [context.DeadlineExceeded], too.
type inner struct{ error }

func (e inner) Is(target error) bool {
	return target != context.Canceled && target != context.DeadlineExceeded && errors.Is(e.error, target)
}

func (e inner) As(target any) bool { return errors.As(e.error, target) }

// AttemptsError is the error of a request with failed attempts. It unwraps to the
// reason why the request went no further, and to every attempt's [AttemptError].
type AttemptsError struct {
	Attempts []error // each an *AttemptError
	// Err says why there was no further attempt: [ErrAttemptsUsedUp], an
	// [*OverloadedError], a [*NoInstancesError], a [*CannotResumeError],
	// [ErrClosed], or the [*AttemptError] of an attempt whose failure another
	// attempt would not mend.
	Err error
}

// Error gives every cause, on one line.
func (e *AttemptsError) Error() string {
	var b strings.Builder
	sep := ": "
	switch _, failed := errors.AsType[*AttemptError](e.Err); {
	case errors.Is(e.Err, ErrAttemptsUsedUp):
		fmt.Fprintf(&b, "Failed after %d attempts", len(e.Attempts))
	case failed:
		b.WriteString(e.Err.Error())
		sep = "; before it "
	default:
		b.WriteString(e.Err.Error())
	}
	for _, err := range e.Attempts {
		b.WriteString(sep)
		b.WriteString(err.Error())
		sep = "; "
	}
	return b.String()
}

// Unwrap returns the reason and all attempts, as errors.Join does.
func (e *AttemptsError) Unwrap() []error { return append([]error{e.Err}, e.Attempts...) }

// label is what an instance is called in texts.
func label(i discovery.Instance) string {
	if i.Name == "" {
		return i.ID.String()
	}
	return fmt.Sprintf("%s (%v)", i.Name, i.ID)
}

func kindOf(err error) stream.Kind {
	if b, ok := errors.AsType[*stream.Break](err); ok {
		return b.Kind
	}
	return ""
}
