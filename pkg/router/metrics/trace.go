package metrics

import (
	"time"

	"github.com/request-migration/migrate/pkg/router"
)

// Trace returns the functions that count one request; it is for
// [router.Config]. An item costs a look at the clock.
//
// A request whose caller leaves the sequence has no outcome; the router does not
// tell of its end.
func (m *Router) Trace() *router.Trace {
	q := &request{m: m}
	return &router.Trace{
		Chosen:  q.chosen,
		Item:    q.item,
		Refused: m.refused,
		Break:   q.broke,
		Done:    q.done,
	}
}

func (m *Router) refused(e router.BreakEvent) { m.refusals.WithLabelValues(string(e.Kind())).Inc() }

// request is one request on its way. It belongs to the goroutine that makes it.
type request struct {
	m        *Router
	attempt  int           // the latest that had an instance
	migrated bool          // it is not the first
	items    bool          // there were some
	last     time.Duration // when the newest came
	broken   bool          // since then
}

// chosen counts an attempt when it has found an instance; where it goes after a
// refusal is the same attempt.
func (q *request) chosen(e router.ChosenEvent) {
	if e.Attempt == q.attempt {
		return
	}
	q.m.attempts.Inc()
	if q.attempt > 0 {
		q.m.migrations.Inc()
		q.migrated = true
	}
	q.attempt = e.Attempt
}

func (q *request) item(router.Item) {
	now := time.Since(q.m.began)
	if q.broken && q.items {
		q.m.gap.Observe((now - q.last).Seconds())
	}
	q.last, q.items, q.broken = now, true, false
}

func (q *request) broke(e router.BreakEvent) {
	q.m.breaks.WithLabelValues(string(e.Kind())).Inc()
	q.broken = true
}

func (q *request) done(e router.DoneEvent) {
	outcome := string(router.OutcomeOf(e.Err))
	q.m.requests.WithLabelValues(outcome).Inc()
	if q.migrated {
		q.m.migrated.WithLabelValues(outcome).Inc()
	}
}
