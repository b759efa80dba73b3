package router

import (
	"context"
	"errors"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// Outcome says in a word how a request ended.
type Outcome string

// The outcomes.
const (
	Success        Outcome = "success"
	NoInstances    Outcome = "no_instances"
	AttemptsUsedUp Outcome = "attempts_used_up"
	Overloaded     Outcome = "overloaded"
	CannotResume   Outcome = "cannot_resume" // what is left begins at the first item only
	Application    Outcome = "application"   // the request itself failed
	Cancelled      Outcome = "cancelled"     // or its deadline passed
	Failed         Outcome = "failed"        // in another way
)

// OutcomeOf returns the outcome that the error of [Router.Do] is.
func OutcomeOf(err error) Outcome {
	_, afterBreaks := errors.AsType[*AttemptsError](err)
	switch {
	case err == nil:
		return Success
	case errors.Is(err, stream.Application):
		return Application
	case errors.Is(err, ErrNoInstances):
		return NoInstances
	case errors.Is(err, ErrAttemptsUsedUp):
		return AttemptsUsedUp
	case errors.Is(err, ErrOverloaded):
		return Overloaded
	case errors.Is(err, ErrCannotResume):
		return CannotResume
	case afterBreaks:
		// Not Cancelled, whatever the breaks are: the timeout of a dial is a
		// deadline exceeded, too.
		return Failed
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Cancelled
	}
	return Failed
}

// Outcomes returns all outcomes.
func Outcomes() []Outcome {
	return []Outcome{Success, NoInstances, AttemptsUsedUp, Overloaded, CannotResume, Application, Cancelled, Failed}
}

// Receipt is the account of one request: what it took, and who served what. It
// defines what is counted, here and in metrics:
//
//   - An attempt is a stream that its instance did not refuse.
//   - A refusal is a stream that an instance did not take, or handed back before
//     it had sent an item, for a reason that is not its failure.
//   - A break is an attempt that ended in any way but its end, or the caller's
//     leaving. One that was handed back midway, or that a standstill of this
//     process explains, does not count against the limit of attempts.
//   - A migration is an attempt that follows a break.
type Receipt struct {
	Request  string           `json:"request"`
	Outcome  Outcome          `json:"outcome"`
	Error    string           `json:"error,omitempty"`
	Items    int              `json:"items"` // of the answer, each counted once
	Attempts []AttemptReceipt `json:"attempts"`
	Refusals []RefusalReceipt `json:"refusals"`
	// Stale has the kept connections that turned out dead and were replaced.
	Stale []StaleReceipt `json:"stale"`
	// Served says which instance the items came from that make up the answer.
	Served []Served `json:"served"`
	// Repeated is how many items came more than once.
	Repeated int `json:"repeated"`
	// GapsMS has, for each break that was followed by an item, the time
	// between the item before it and that one, in milliseconds. A break before
	// the first item of all has none.
	GapsMS []float64 `json:"gaps_ms"`
}

// Migrations returns how often the request went on at another instance after a
// break.
func (r Receipt) Migrations() int { return max(len(r.Attempts)-1, 0) }

// AttemptReceipt is the account of one attempt at one instance. From and To
// bound the items that it delivered, as in a slice: To is not among them.
type AttemptReceipt struct {
	Attempt  int                  `json:"attempt"`
	Instance discovery.InstanceID `json:"instance"`
	Name     string               `json:"name"`
	From     int                  `json:"from"`
	To       int                  `json:"to"`
	Kind     stream.Kind          `json:"kind,omitempty"` // of the break; "" for none
	Error    string               `json:"error,omitempty"`
	Blamed   bool                 `json:"blamed"` // was reported down
}

// RefusalReceipt is the account of one instance that did not take the request.
type RefusalReceipt struct {
	Attempt  int                  `json:"attempt"` // the one under way
	Instance discovery.InstanceID `json:"instance"`
	Name     string               `json:"name"`
	Kind     stream.Kind          `json:"kind"`
	Error    string               `json:"error"`
	Blamed   bool                 `json:"blamed"` // was reported down: its record is out of date
}

// StaleReceipt tells of a kept connection that was replaced.
type StaleReceipt struct {
	Attempt  int                  `json:"attempt"`
	Instance discovery.InstanceID `json:"instance"`
	Name     string               `json:"name"`
}

// Served is a part of an answer and who it came from, bounded as in a slice.
type Served struct {
	Instance discovery.InstanceID `json:"instance"`
	Name     string               `json:"name"`
	From     int                  `json:"from"`
	To       int                  `json:"to"`
}

// Recorder writes the receipt of one request, whose [Trace] it provides. It
// belongs to the goroutine that makes the request.
type Recorder struct {
	receipt Receipt
	from    int       // where the current attempt begins
	last    time.Time // when the newest item came
	broken  bool      // since then
}

// Trace returns the functions that record, for [WithTrace].
func (r *Recorder) Trace() *Trace {
	return &Trace{
		Attempt: func(e AttemptEvent) { r.from = e.From },
		Chosen: func(e ChosenEvent) {
			r.receipt.Attempts = append(r.receipt.Attempts, AttemptReceipt{
				Attempt: e.Attempt, Instance: e.Instance.ID, Name: e.Instance.Name, From: r.from, To: r.from,
			})
		},
		Stale: func(e StaleEvent) {
			r.receipt.Stale = append(r.receipt.Stale, StaleReceipt{
				Attempt: e.Attempt, Instance: e.Instance.ID, Name: e.Instance.Name,
			})
		},
		Item:    r.item,
		Refused: r.refused,
		Break:   r.broke,
		Done: func(e DoneEvent) {
			r.receipt.Request, r.receipt.Outcome = e.Request, OutcomeOf(e.Err)
			if e.Err != nil {
				r.receipt.Error = e.Err.Error()
			}
		},
	}
}

func (r *Recorder) item(i Item) {
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

// refused takes what was chosen for an attempt back.
func (r *Recorder) refused(e BreakEvent) {
	r.receipt.Attempts = r.receipt.Attempts[:len(r.receipt.Attempts)-1]
	r.receipt.Refusals = append(r.receipt.Refusals, RefusalReceipt{
		Attempt: e.Attempt, Instance: e.Instance.ID, Name: e.Instance.Name,
		Kind: e.Kind(), Error: e.Err.Error(), Blamed: e.Reported,
	})
}

func (r *Recorder) broke(e BreakEvent) {
	a := &r.receipt.Attempts[len(r.receipt.Attempts)-1]
	a.Kind, a.Error, a.Blamed = e.Kind(), e.Err.Error(), e.Reported
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

// served returns who the answer came from: an attempt that began again before
// items of an earlier one replaces them.
func served(attempts []AttemptReceipt) []Served {
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
