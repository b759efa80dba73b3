package router

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

var (
	// ErrNoInstances is what a [NoInstancesError] is.
	ErrNoInstances = errors.New("no instances found")
	// ErrAttemptsUsedUp is what an [AttemptsError] is when its request had no
	// attempt left.
	ErrAttemptsUsedUp = errors.New("attempts used up")
	// ErrOverloaded says that every instance that was left has refused the
	// request as overloaded. None of them is down.
	ErrOverloaded = errors.New("all instances are overloaded")
	// ErrClosed is returned for requests of a router that was closed.
	ErrClosed = errors.New("router: closed")
)

// maxKnown is how many instances an error lists: about as many as a person reads.
const maxKnown = 10

// NoInstancesError says that no instance is left for a request, and why.
type NoInstancesError struct {
	Endpoint discovery.Endpoint
	// Wanted is the name or id that the request asked for, if that is what
	// could not be found; Known are the names there are.
	Wanted string
	Known  []string
	// Source is how many instances discovery lists, Down how many of them are
	// down, Tried how many of the others have had the request already.
	Source, Down, Tried int
	// Next is when the first of those that are down returns, from now on.
	Next time.Duration
	// Waited is how long the request has waited for an instance.
	Waited time.Duration
	// Stale says why discovery can't be read now, if so: there may be more
	// instances than it last listed.
	Stale error
}

// Error says how many instances there are, and why none of them will do.
func (e *NoInstancesError) Error() string {
	var why []string
	if e.Wanted != "" {
		known := "there is none"
		if n := len(e.Known); n > 0 {
			known = "there are " + strings.Join(e.Known[:min(n, maxKnown)], ", ")
			if n > maxKnown {
				known += fmt.Sprintf(" and %d more", n-maxKnown)
			}
		}
		why = append(why, fmt.Sprintf("none is called %q, %s", e.Wanted, known))
	} else {
		why = append(why, fmt.Sprintf("%d in source", e.Source))
	}
	if e.Down > 0 {
		why = append(why, fmt.Sprintf("%d down, the next returns in %v", e.Down, e.Next.Round(100*time.Millisecond)))
	}
	if e.Tried > 0 {
		why = append(why, fmt.Sprintf("%d tried already", e.Tried))
	}
	if e.Waited > 0 {
		why = append(why, fmt.Sprintf("after waiting %v", e.Waited))
	}
	if e.Stale != nil {
		why = append(why, fmt.Sprintf("discovery can't be read: %v", e.Stale))
	}
	return fmt.Sprintf("%v for endpoint %v (%s)", ErrNoInstances, e.Endpoint, strings.Join(why, ", "))
}

// Is reports whether target is [ErrNoInstances].
func (e *NoInstancesError) Is(target error) bool { return target == ErrNoInstances }

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

// Unwrap returns the cause.
func (e *AttemptError) Unwrap() error { return e.Err }

// AttemptsError is the end of a request that had failed attempts. It unwraps to
// why the request went no further and to every attempt's [AttemptError].
type AttemptsError struct {
	Attempts []error // each an *AttemptError
	// Err says why there was no further attempt: [ErrAttemptsUsedUp],
	// [ErrOverloaded], a [*NoInstancesError], or the [*AttemptError] of one
	// that failed in a way that another attempt would not mend.
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

// label is how an instance is called in texts.
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
