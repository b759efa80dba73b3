// Package receipt keeps the account of a request that a [router.Router] carries:
// its attempts, its refusals, which instance served which items, and how it ended.
package receipt

import (
	"context"
	"errors"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
)

// Outcome says in a word how a request ended.
type Outcome string

// The outcomes of a request.
const (
	// OutcomeSuccess: the answer is complete.
	OutcomeSuccess Outcome = "success"
	// OutcomeNoInstances: no instance was left, see [router.ErrNoInstances].
	OutcomeNoInstances Outcome = "no_instances"
	// OutcomeAttemptsUsedUp: the last attempt broke, see [router.ErrAttemptsUsedUp].
	OutcomeAttemptsUsedUp Outcome = "attempts_used_up"
	// OutcomeOverloaded: instances refused as overloaded, and no other was
	// left, see [router.ErrOverloaded].
	OutcomeOverloaded Outcome = "overloaded"
	// OutcomeCannotResume: nobody could carry the answer on, or it began anew
	// otherwise, see [router.ErrCannotResume].
	OutcomeCannotResume Outcome = "cannot_resume"
	// OutcomeApplication: the request itself failed, see [stream.Application].
	OutcomeApplication Outcome = "application"
	// OutcomeCancelled: the request was cancelled, or its deadline passed.
	OutcomeCancelled Outcome = "cancelled"
	// OutcomeLeft: the caller has left the sequence, see [router.ErrLeft].
	OutcomeLeft Outcome = "left"
	// OutcomeOther: the request ended in any other way.
	OutcomeOther Outcome = "other"
)

// Outcomes returns all outcomes.
func Outcomes() []Outcome {
	return []Outcome{
		OutcomeSuccess, OutcomeNoInstances, OutcomeAttemptsUsedUp, OutcomeOverloaded,
		OutcomeCannotResume, OutcomeApplication, OutcomeCancelled, OutcomeLeft, OutcomeOther,
	}
}

// OutcomeOf returns the outcome that an error of [router.Router.Do], or of
// [router.DoneEvent], stands for; nil is [OutcomeSuccess].
func OutcomeOf(err error) Outcome {
	switch {
	case err == nil:
		return OutcomeSuccess
	case errors.Is(err, router.ErrLeft):
		return OutcomeLeft
	case errors.Is(err, stream.Application):
		return OutcomeApplication
	case errors.Is(err, router.ErrNoInstances):
		return OutcomeNoInstances
	case errors.Is(err, router.ErrAttemptsUsedUp):
		return OutcomeAttemptsUsedUp
	case errors.Is(err, router.ErrOverloaded):
		return OutcomeOverloaded
	case errors.Is(err, router.ErrCannotResume):
		return OutcomeCannotResume
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return OutcomeCancelled
	}
	return OutcomeOther
}

// Receipt is the account of one request: what it took, and who served what. It
// defines what is counted, here and in metrics:
//
//   - An attempt is a stream that its instance did not refuse.
//   - A refusal is a stream that an instance did not take, or handed back before
//     it had sent an item, for a reason that is not its failure.
//   - A break is an attempt that ended in any way but with its end line, or
//     because the caller left. A stream that was handed back midway, or that broke
//     because this process was paused, does not count against the limit of attempts.
//   - A migration is an attempt that follows a break.
type Receipt struct {
	Request string  `json:"request"` // the request's id
	Outcome Outcome `json:"outcome"` // "" until the request is over
	Error   string  `json:"error,omitempty"`
	Items   int     `json:"items"` // of the answer, each counted once
	// Attempts and Refusals are in the order in which they were made.
	Attempts []Attempt `json:"attempts"`
	Refusals []Refusal `json:"refusals"`
	// Stale holds the kept connections that turned out dead and were replaced.
	Stale []Stale `json:"stale"`
	// Served says which instance sent the items that make up the answer.
	Served []Served `json:"served"`
	// Repeated is how many items came more than once.
	Repeated int `json:"repeated"`
	// GapsMS holds, for each break that was followed by an item, the time
	// between the item before it and that one, in milliseconds. A break before
	// the first item of all has none.
	GapsMS []float64 `json:"gaps_ms"`
}

// Migrations returns how often the request went on at another instance after a
// break.
func (r Receipt) Migrations() int { return max(len(r.Attempts)-1, 0) }

// Attempt is the account of one attempt at one instance. From and To bound the
// items that it delivered, as in a slice: To is not among them.
type Attempt struct {
	Attempt  int                  `json:"attempt"` // from 1
	Instance discovery.InstanceID `json:"instance"`
	Name     string               `json:"name"`
	From     int                  `json:"from"`
	To       int                  `json:"to"`
	// Way is how the answer was carried on; "" at the first attempt.
	Way      router.Way  `json:"way,omitempty"`
	Kind     stream.Kind `json:"kind,omitempty"` // of the break; "" for none
	Error    string      `json:"error,omitempty"`
	Reported bool        `json:"reported"` // as down
}

// Refusal is the account of one instance that did not take the request.
type Refusal struct {
	Attempt  int                  `json:"attempt"` // the one under way
	Instance discovery.InstanceID `json:"instance"`
	Name     string               `json:"name"`
	Kind     stream.Kind          `json:"kind"`
	Error    string               `json:"error"`
	Reported bool                 `json:"reported"` // as down: its record is out of date
}

// Stale is a kept connection that turned out dead and was replaced.
type Stale struct {
	Attempt  int                  `json:"attempt"`
	Instance discovery.InstanceID `json:"instance"`
	Name     string               `json:"name"`
}

// Served is a part of an answer and the instance that sent it, bounded as in a
// slice.
type Served struct {
	Instance discovery.InstanceID `json:"instance"`
	Name     string               `json:"name"`
	From     int                  `json:"from"`
	To       int                  `json:"to"`
}

// Recorder writes the receipt of one request. Its zero value is ready; it belongs
// to the goroutine that makes the request.
type Recorder struct {
	receipt Receipt
	from    int       // where the current attempt begins
	last    time.Time // when the newest item came
	broken  bool      // since then
}

// Trace returns the functions that record, for [router.Request].
func (r *Recorder) Trace() *router.Trace {
	return &router.Trace{
		Attempt: func(e router.AttemptEvent) { r.from = e.From },
		Chosen: func(e router.ChosenEvent) {
			r.receipt.Attempts = append(r.receipt.Attempts, Attempt{
				Attempt: e.Attempt, Instance: e.Instance.ID, Name: e.Instance.Name, From: r.from, To: r.from, Way: e.Way,
			})
		},
		Stale: func(e router.StaleEvent) {
			r.receipt.Stale = append(r.receipt.Stale, Stale{
				Attempt: e.Attempt, Instance: e.Instance.ID, Name: e.Instance.Name,
			})
		},
		Item:    r.item,
		Refused: r.refused,
		Break:   r.broke,
		Done: func(e router.DoneEvent) {
			r.receipt.Request, r.receipt.Outcome = e.Request, OutcomeOf(e.Err)
			if e.Err != nil {
				r.receipt.Error = e.Err.Error()
			}
		},
	}
}

func (r *Recorder) item(i router.Item) {
	now := time.Now()
	if r.broken && !r.last.IsZero() {
		r.receipt.GapsMS = append(r.receipt.GapsMS, float64(now.Sub(r.last).Microseconds())/1000)
	}
	r.last, r.broken = now, false
	r.receipt.Attempts[len(r.receipt.Attempts)-1].To = i.Index + 1
	if i.Index < r.receipt.Items {
		r.receipt.Repeated++
	} else {
		r.receipt.Items = i.Index + 1
	}
}

// refused takes back the attempt for which the instance was chosen.
func (r *Recorder) refused(e router.BreakEvent) {
	r.receipt.Attempts = r.receipt.Attempts[:len(r.receipt.Attempts)-1]
	r.receipt.Refusals = append(r.receipt.Refusals, Refusal{
		Attempt: e.Attempt, Instance: e.Instance.ID, Name: e.Instance.Name,
		Kind: e.Kind(), Error: e.Err.Error(), Reported: e.Reported,
	})
}

func (r *Recorder) broke(e router.BreakEvent) {
	a := &r.receipt.Attempts[len(r.receipt.Attempts)-1]
	a.Kind, a.Error, a.Reported = e.Kind(), e.Err.Error(), e.Reported
	r.broken = true
}

// Receipt returns the account so far; it is complete after the sequence ended.
func (r *Recorder) Receipt() Receipt {
	receipt := r.receipt
	receipt.Served = served(receipt.Attempts)
	// In JSON an empty list is a list.
	receipt.Attempts = orEmpty(receipt.Attempts)
	receipt.Refusals = orEmpty(receipt.Refusals)
	receipt.Stale = orEmpty(receipt.Stale)
	receipt.GapsMS = orEmpty(receipt.GapsMS)
	return receipt
}

func orEmpty[E any](list []E) []E {
	if list == nil {
		return []E{}
	}
	return list
}

// served returns which instance sent which part of the answer. An attempt that
// began at an earlier item again replaces the items from there on.
func served(attempts []Attempt) []Served {
	parts := []Served{}
	for _, a := range attempts {
		if a.From == a.To {
			continue
		}
		for len(parts) > 0 && parts[len(parts)-1].To > a.From {
			last := &parts[len(parts)-1]
			last.To = a.From
			if last.From >= last.To {
				parts = parts[:len(parts)-1]
			}
		}
		parts = append(parts, Served{Instance: a.Instance, Name: a.Name, From: a.From, To: a.To})
	}
	return parts
}
