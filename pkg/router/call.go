package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

var errLeft = errors.New("the caller has left the sequence")

// Request is what a caller asks of an endpoint.
type Request struct {
	// ID names the request in logs and on the wire; "" means a random one.
	ID string
	// Data is the question: any JSON value.
	Data json.RawMessage
	// Instance is the name or id of the instance for the first attempt, ""
	// for any. It is not used while it is down; failover goes elsewhere.
	Instance string
}

// Item is one item of an answer, with where it came from.
type Item struct {
	stream.Annotated
	// Index is the item's place in the answer, from 0. Without
	// [Config.Resume] each attempt begins at 0 again.
	Index   int
	Attempt int // from 1
	Peer    *Peer
}

// Do sends req to an available instance, yields the items as they come, and
// carries on at another instance when the stream breaks. If the sequence ends
// without an error, the answer is complete. Otherwise its last pair is the
// error:
//
//   - [*NoInstancesError] if no instance was left,
//   - [ErrOverloaded] if all that were left refused,
//   - [ErrAttemptsUsedUp] after the last attempt,
//   - [stream.Application] if the request itself failed,
//   - ctx's error if ctx ended first.
//
// All but the last come as or within an [*AttemptsError] if attempts had failed
// before. To leave the sequence early cancels the request.
func (r *Router) Do(ctx context.Context, req Request) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		c := call{r: r, req: req, trace: contextTrace(ctx), yield: yield}
		if r.cfg.Trace != nil {
			c.trace = joined(r.cfg.Trace(), c.trace)
		}
		if c.trace == nil {
			c.trace = &Trace{}
		}
		if c.req.ID == "" {
			c.req.ID = fmt.Sprintf("%08x", rand.Uint32())
		}
		err := c.run(ctx)
		if errors.Is(err, errLeft) {
			return
		}
		tell(c.trace.Done, DoneEvent{Request: c.req.ID, Err: err})
		if err != nil {
			yield(Item{}, err)
		}
	}
}

// call is one request on its way. It belongs to the caller's goroutine.
type call struct {
	r     *Router
	req   Request
	trace *Trace
	yield func(Item, error) bool

	attempt int                    // the current one, from 1
	spent   int                    // attempts that count against the limit
	next    int                    // index of the first item that the caller lacks
	tried   []discovery.InstanceID // have broken or refused the request
	refused bool                   // one of them, as overloaded
	failed  []error                // an *AttemptError each
}

// run makes attempts until one ends the request.
func (c *call) run(ctx context.Context) error {
	if err := c.awaitSource(ctx); err != nil {
		return err
	}
	for c.attempt = 1; ; c.attempt++ {
		from := 0
		if c.r.cfg.Resume {
			from = c.next
		}
		tell(c.trace.Attempt, AttemptEvent{Request: c.req.ID, Attempt: c.attempt, From: from})
		done, err := c.try(ctx, from)
		if done {
			return err
		}
	}
}

// try makes one attempt, and reports whether the request is over with it. Who
// refuses does not end the attempt: it goes on at another instance.
func (c *call) try(ctx context.Context, from int) (done bool, err error) {
	for {
		p, err := c.pick(ctx)
		if err != nil {
			return true, c.giveUp(ctx, err)
		}
		tell(c.trace.Chosen, ChosenEvent{Attempt: c.attempt, Instance: p.Instance})
		got, err := c.stream(ctx, p, from)
		v := judge(err)
		switch {
		case err == nil:
			c.r.tiers.completed(p)
			return true, nil
		case !v.retry:
			return true, c.giveUp(ctx, c.ended(p, err))
		}
		c.tried = append(c.tried, p.ID)
		c.refused = c.refused || errors.Is(err, stream.Overloaded)
		if !v.counts && got == 0 {
			c.r.log.Info("request refused", "request", c.req.ID, "attempt", c.attempt, "instance", p.ID, "name", p.Name, "err", err)
			tell(c.trace.Refused, BreakEvent{Attempt: c.attempt, Instance: p.Instance, Err: err, Retry: true, Time: time.Now()})
			continue
		}
		if v.counts {
			c.spent++
		}
		c.failed = append(c.failed, &AttemptError{Attempt: c.attempt, Instance: p.Instance, Err: err})
		last := c.spent >= c.r.cfg.Attempts
		c.broke(p, err, v.report, !last)
		if last {
			return true, &AttemptsError{Attempts: c.failed, Err: ErrAttemptsUsedUp}
		}
		return false, nil
	}
}

// stream opens one stream and yields its items; got is how many.
func (c *call) stream(ctx context.Context, p *Peer, from int) (got int, err error) {
	p.streams.Add(1)
	defer p.streams.Add(-1)
	req := stream.Request{ID: c.req.ID, Data: c.req.Data, From: from, Attempt: c.attempt}
	item := Item{Index: from, Attempt: c.attempt, Peer: p}
	for a, err := range c.r.cfg.Client.Stream(ctx, p.Address, req) {
		if err != nil {
			return item.Index - from, err
		}
		item.Annotated = a
		if c.trace.Item != nil {
			c.trace.Item(item)
		}
		c.next = item.Index + 1
		if !c.yield(item, nil) {
			return item.Index + 1 - from, errLeft
		}
		item.Index++
	}
	return item.Index - from, nil
}

// broke tells of a break after which the request may go on.
func (c *call) broke(p *Peer, err error, report, retry bool) {
	e := BreakEvent{Attempt: c.attempt, Instance: p.Instance, Err: err, Reported: report, Retry: retry, Time: time.Now()}
	c.r.log.Info("stream broke", "request", c.req.ID, "attempt", c.attempt, "instance", p.ID, "name", p.Name,
		"kind", kindOf(err), "err", err, "items", c.next, "retry", retry)
	if !report {
		tell(c.trace.Break, e)
		return
	}
	// First the report: other requests need it sooner than the trace does.
	d, isNew := c.r.reportDown(p, err)
	tell(c.trace.Break, e)
	if isNew {
		tell(c.trace.Down, d)
	}
}

// ended returns the error of a stream that ends the request, and tells of it if
// it is a break, not the caller's own doing.
func (c *call) ended(p *Peer, err error) error {
	if kindOf(err) == "" {
		return err
	}
	tell(c.trace.Break, BreakEvent{Attempt: c.attempt, Instance: p.Instance, Err: err, Time: time.Now()})
	return &AttemptError{Attempt: c.attempt, Instance: p.Instance, Err: err}
}

// giveUp returns the error of a request that ends for the reason err.
func (c *call) giveUp(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, errLeft):
		return err
	case ctx.Err() != nil && kindOf(err) == "":
		if errors.Is(err, ctx.Err()) {
			return err
		}
		return c.contextError(ctx) // a client may give the cause alone
	case len(c.failed) == 0:
		return err
	}
	return &AttemptsError{Attempts: c.failed, Err: err}
}
