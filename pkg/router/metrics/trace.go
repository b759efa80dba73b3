package metrics

import (
	"time"

	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/router/receipt"
)

// Trace returns the functions that count one request, for [router.Config]. It
// reads the clock once an item.
//
// The request counts as in flight from now on.
func (m *Router) Trace() *router.Trace {
	m.running.Inc()
	q := &request{m: m, began: time.Since(m.began)}
	return &router.Trace{
		Chosen:  q.chosen,
		Stale:   func(router.StaleEvent) { m.stale.Inc() },
		Item:    q.item,
		Refused: q.refused,
		Break:   q.broke,
		Done:    q.done,
	}
}

// request is one request on its way. It belongs to the goroutine that makes it.
// What counts as what is defined by [receipt.Receipt].
type request struct {
	m        *Router
	began    time.Duration
	pending  bool          // an instance, which may yet refuse
	attempts int           // those that were not refused
	items    bool          // there were some
	last     time.Duration // when the newest came
	broken   bool          // since then
}

func (q *request) chosen(e router.ChosenEvent) {
	q.m.choices.WithLabelValues(string(e.Step)).Inc()
	if e.Trial {
		q.m.trials.Inc()
	}
	q.pending = true
}

// taken counts an attempt when it is clear that it was not refused.
func (q *request) taken() {
	if !q.pending {
		return
	}
	q.pending = false
	q.m.attempts.Inc()
	if q.attempts++; q.attempts > 1 {
		q.m.migrations.Inc()
	}
}

func (q *request) refused(e router.BreakEvent) {
	q.pending = false
	q.m.refusals.WithLabelValues(string(e.Kind())).Inc()
}

func (q *request) item(router.Item) {
	q.taken()
	now := time.Since(q.m.began)
	if !q.items {
		q.m.first.Observe((now - q.began).Seconds())
	}
	if q.broken && q.items {
		q.m.gap.Observe((now - q.last).Seconds())
	}
	q.last, q.items, q.broken = now, true, false
}

func (q *request) broke(e router.BreakEvent) {
	q.taken()
	q.m.breaks.WithLabelValues(string(e.Kind())).Inc()
	q.broken = true
}

func (q *request) done(e router.DoneEvent) {
	q.taken()
	outcome := string(receipt.OutcomeOf(e.Err))
	q.m.running.Dec()
	q.m.duration.WithLabelValues(outcome).Observe((time.Since(q.m.began) - q.began).Seconds())
	q.m.requests.WithLabelValues(outcome).Inc()
	if q.attempts > 1 {
		q.m.migrated.WithLabelValues(outcome).Inc()
	}
}
