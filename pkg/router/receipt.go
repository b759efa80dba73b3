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
	Application    Outcome = "application" // the request itself failed
	Cancelled      Outcome = "cancelled"   // or its deadline passed
	Failed         Outcome = "failed"      // in another way
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
	case afterBreaks:
		// Not Cancelled, whatever the breaks are: the timeout of a dial is a
		// deadline exceeded, too.
		return Failed
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Cancelled
	}
	return Failed
}

// Receipt is the account of one request: what it took, and who served what.
type Receipt struct {
	Request  string           `json:"request"`
	Outcome  Outcome          `json:"outcome"`
	Error    string           `json:"error,omitempty"`
	Items    int              `json:"items"` // of the answer, each counted once
	Attempts []AttemptReceipt `json:"attempts"`
	// Served says which instance the items came from that make up the answer.
	Served []Served `json:"served"`
	// Repeated is how many items came more than once.
	Repeated int `json:"repeated"`
	// GapsMS has, for each break that was followed by an item, the time
	// between the item before it and that one, in milliseconds. A break before
	// the first item of all has none.
	GapsMS []float64 `json:"gaps_ms"`
}

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
		Item:    r.item,
		Refused: r.broke,
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
	if receipt.Attempts == nil {
		receipt.Attempts = []AttemptReceipt{}
	}
	if receipt.GapsMS == nil {
		receipt.GapsMS = []float64{}
	}
	return receipt
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
