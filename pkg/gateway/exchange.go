package gateway

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"time"

	"github.com/request-migration/migrate/pkg/internal/kept"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
)

const (
	// maxAnew is how often a request that has delivered nothing begins anew after an answer
	// that cannot be carried on.
	maxAnew = 3
	// waitBetween is the least time between two rounds of a request that waits.
	waitBetween = 500 * time.Millisecond
)

// A sink takes what a client gets of an answer.
type sink interface {
	// item takes the next item. migrated, if not nil, says that the answer goes on at another
	// instance with it. It reports whether the client now has something of the answer.
	item(i router.Item, migrated *Migration) (delivered bool, err error)
	// anew forgets what has come; it is called only while nothing is delivered.
	anew()
	// end ends a whole answer, or one that ends with an error.
	end(err *apiError) error
}

// An exchange is one request of a client, on its way through models and their instances.
type exchange struct {
	g     *Gateway
	q     *query
	out   sink
	entry *Entry

	answer    *answer // what came, for usage
	delivered bool    // the client has something of the answer
	next      int     // how many items came
	kept      kept.Items
	dropped   bool // they have become too many to be kept
	anews     int

	lastAt time.Time // when the last item came
	from   string    // the instance of the last item, by name
	broke  stream.Kind
	way    router.Way
}

// run makes the request and sees to its end. It returns what the client could not be told: why
// its connection is to be aborted.
func (g *Gateway) run(r *http.Request, q *query, first *model, a *answer, out sink, entry *Entry) error {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(g.ctx, func() { cancel(context.Cause(g.ctx)) })()
	x := &exchange{g: g, q: q, out: out, answer: a, entry: entry}
	running := g.recent.begin(q)
	defer g.recent.end(running)
	err := x.carry(ctx, first)
	entry.took(a)
	switch {
	case err == nil:
		entry.Status = http.StatusOK
		return out.end(nil)
	case r.Context().Err() != nil:
		entry.fail(&apiError{status: 499, code: "client_left", message: "the client has left"})
		return r.Context().Err()
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	told := judge(err)
	told.message = g.models.inModels(told.message, first)
	entry.fail(told)
	if told.status >= http.StatusInternalServerError {
		g.log.Warn("request failed", "request", q.id, "model", q.model, "delivered", x.delivered, "err", err)
	}
	return out.end(told)
}

// carry asks the model, those that stand in for it, and then, if there is something to save,
// waits for an instance.
func (x *exchange) carry(ctx context.Context, first *model) error {
	chain := x.g.models.chain(first)
	err := x.askEach(ctx, chain, 0)
	wait := x.g.cfg.WaitRestore
	if err == nil || wait <= 0 || !x.isMended(ctx, err) || x.q.streamed && !x.delivered {
		return err
	}
	x.g.log.Info("waiting for an instance", "request", x.q.id, "model", first.name, "for", wait, "err", err)
	for end := time.Now().Add(wait); ; {
		left := time.Until(end)
		if left <= 0 {
			return err
		}
		began := time.Now()
		err = x.askEach(ctx, chain[:1], left)
		if err == nil || !x.isMended(ctx, err) {
			return err
		}
		select { // as when all refuse at once
		case <-time.After(max(waitBetween-time.Since(began), 0)):
		case <-ctx.Done():
		}
	}
}

// askEach asks one model after the other, until one has given the rest of the answer or what
// went wrong is the request's own fault.
func (x *exchange) askEach(ctx context.Context, chain []*model, wait time.Duration) error {
	var failed error
	for n, m := range chain {
		if n > 0 {
			x.g.log.Info("falling back", "request", x.q.id, "model", m.name, "item", x.next, "err", failed)
			x.entry.Fallbacks++
		}
		for {
			failed = x.ask(ctx, m, wait)
			if failed == nil || !x.mayBeginAnew(failed) {
				break
			}
			x.begin()
		}
		if failed == nil || !x.isMended(ctx, failed) {
			return failed
		}
	}
	return failed
}

// isMended reports whether another model, or another try, may mend an error.
func (x *exchange) isMended(ctx context.Context, err error) bool {
	if ctx.Err() != nil || errors.Is(err, errSink) {
		return false
	}
	if e, own := refused(err); own {
		return isTooLong(e)
	}
	return !errors.Is(err, stream.ErrInvalidRequest)
}

// mayBeginAnew reports whether the answer, of which the client has nothing, is asked for from
// its beginning.
func (x *exchange) mayBeginAnew(err error) bool {
	return errors.Is(err, router.ErrCannotResume) && !x.delivered && x.next > 0 && x.anews < maxAnew
}

func (x *exchange) begin() {
	x.anews++
	x.entry.Wasted += x.answer.tokens
	x.next, x.kept, x.dropped = 0, kept.Items{}, false
	x.answer.anew()
	x.out.anew()
}

// errSink says that what came could not be passed to the client.
var errSink = errors.New("the client does not take the answer")

// ask asks one model for the answer, or for the rest of it.
func (x *exchange) ask(ctx context.Context, m *model, wait time.Duration) error {
	x.entry.Model = m.name
	x.answer.model = m.name
	if x.dropped {
		return &apiError{status: http.StatusBadGateway, kind: "server_error", code: "cannot_resume", final: true,
			message: "the engine broke, and the answer is too long to be carried on"}
	}
	for item, err := range x.items(ctx, m, wait) {
		if err != nil {
			return err
		}
		if err := x.take(item); err != nil {
			return errors.Join(errSink, err)
		}
	}
	return nil
}

// items returns the rest of the answer, from a model.
func (x *exchange) items(ctx context.Context, m *model, wait time.Duration) iter.Seq2[router.Item, error] {
	return m.router.Do(ctx, router.Request{
		ID: x.q.id, Data: x.q.data(m.name), Prefix: x.kept.All(), Key: x.q.key, Headers: x.q.headers,
		Wait: wait, WaitRestore: wait, Trace: x.trace(),
	})
}

// take passes an item on.
func (x *exchange) take(item router.Item) error {
	now := time.Now()
	if x.entry.FirstItem == 0 {
		x.entry.FirstItem = now.Sub(x.entry.began)
	}
	name := item.Peer.Name
	var migrated *Migration
	if x.from != "" && x.from != name && x.next > 0 {
		m := Migration{
			Request: x.q.id, From: x.from, To: name, Item: x.next, GapMS: now.Sub(x.lastAt).Milliseconds(),
			Kind: string(x.broke), Way: string(x.way), At: now,
		}
		x.g.log.Info("migrated", "request", m.Request, "from", m.From, "to", m.To, "item", m.Item, "gap", now.Sub(x.lastAt).Round(time.Millisecond), "kind", m.Kind, "way", m.Way)
		x.entry.Migrations = append(x.entry.Migrations, m)
		x.g.recent.migrated(m)
		migrated = &m
	}
	x.from, x.lastAt = name, now
	x.entry.serve(name)
	x.keep(item.Annotated)
	delivered, err := x.out.item(item, migrated)
	x.delivered = x.delivered || delivered
	return err
}

// keep keeps an item, unless the answer is too long.
func (x *exchange) keep(a stream.Annotated) {
	x.next++
	if x.dropped {
		return
	}
	if x.kept.Add(a); x.kept.Size() > router.DefaultMaxPrefix {
		x.kept, x.dropped = kept.Items{}, true
	}
}

// trace follows the request's attempts.
func (x *exchange) trace() *router.Trace {
	return &router.Trace{
		Chosen: func(e router.ChosenEvent) {
			x.entry.Attempts++
			x.way = e.Way
			x.answer.attempt(e.Way)
		},
		Refused: func(e router.BreakEvent) { x.broke = e.Kind() },
		Break:   func(e router.BreakEvent) { x.broke = e.Kind() },
	}
}
