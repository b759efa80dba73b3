package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

var errLeft = errors.New("the caller has left the sequence")

// overloadLimit is how many instances, for each attempt that a request has, may
// refuse it as overloaded before it gives up: enough to pass by a few that are
// full, too few to load a fleet that is full with its own refusals.
const overloadLimit = 2

// Request is what a caller asks of an endpoint.
type Request struct {
	// ID names the request in logs and on the wire; "" means 16 random hex
	// digits.
	ID string
	// Data is the question: any JSON value.
	Data json.RawMessage
	// Instance is the name or id of the instance for the first attempt, ""
	// for any. It is not used while it is down; failover goes elsewhere.
	Instance string
	// Attempts is how many streams this request may open; 0 means
	// [Config.Attempts].
	Attempts int
	// Timeout is how long the request may take, which each instance is told
	// when it is asked; 0 means no more than the context's deadline says. It
	// does not end the request here: the context does.
	Timeout time.Duration
	// Headers go to each instance with the request, see [stream.Request].
	Headers map[string]string
}

// Item is one item of an answer, with where it came from.
type Item struct {
	stream.Annotated
	// Index is the item's place in the answer, from 0. With [Config.Restart]
	// each attempt begins at 0 again.
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
//   - [*OverloadedError] if none was left and some refused as overloaded,
//   - [*CannotResumeError] if those that were left begin at the first item only,
//   - [ErrAttemptsUsedUp] after the last attempt,
//   - [stream.Application] if the request itself failed,
//   - ctx's error if ctx ended first.
//
// All but the last come as or within an [*AttemptsError] if attempts had failed
// before. To leave the sequence early cancels the request.
func (r *Router) Do(ctx context.Context, req Request) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		c := call{r: r, req: req, trace: contextTrace(ctx), yield: yield, attempts: r.cfg.Attempts}
		if req.Attempts > 0 {
			c.attempts = req.Attempts
		}
		if r.cfg.Trace != nil {
			c.trace = joined(r.cfg.Trace(), c.trace)
		}
		if c.trace == nil {
			c.trace = &Trace{}
		}
		if c.req.ID == "" {
			c.req.ID = fmt.Sprintf("%016x", rand.Uint64())
		}
		c.hooks = stream.Hooks{Started: c.started, Stale: c.stale}
		defer c.panicking.end()
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
	r        *Router
	req      Request
	attempts int // its limit
	trace    *Trace
	yield    func(Item, error) bool

	attempt int // the current one, from 1
	from    int // index of the first item that it wants
	next    int // index of the first item that the caller lacks
	spent   int // attempts that count against the limit
	pauses  int // breaks that this process's own standstill explains
	tried   map[identity]outcome
	failed  []error // an *AttemptError each

	overloads       int  // refusals as overloaded since the last item
	askedBackingOff bool // one that was backing off
	panicking       panicking

	hooks stream.Hooks

	// Of the current choice.
	step  Step
	peer  *Peer
	trial int64 // by which this request tries it; 0 for none
	owed  bool  // it has yet to answer
	now   int64 // by the tiers' clock; 0 until somebody needs it
}

// run makes attempts until one ends the request.
func (c *call) run(ctx context.Context) error {
	if err := c.awaitSource(ctx); err != nil {
		return err
	}
	for c.attempt = 1; ; c.attempt++ {
		if !c.r.cfg.Restart {
			c.from = c.next
		}
		tell(c.trace.Attempt, AttemptEvent{Request: c.req.ID, Attempt: c.attempt, From: c.from})
		done, err := c.try(ctx)
		if done {
			return err
		}
	}
}

// try makes one attempt, and reports whether the request is over with it. Who
// refuses does not end the attempt: it goes on at another instance.
func (c *call) try(ctx context.Context) (done bool, err error) {
	for refused := true; refused && !done; {
		p, err := c.pick(ctx)
		if err != nil {
			return true, c.giveUp(ctx, err)
		}
		tell(c.trace.Chosen, ChosenEvent{Attempt: c.attempt, Instance: p.Instance, Step: c.step, Trial: c.trial != 0})
		refused, done, err = c.visit(ctx, p)
		if c.trial != 0 {
			p.passTrial(c.trial)
			c.trial = 0
		}
		if c.step == StepPanic {
			c.panicking.used = true
			c.panicking.end()
		}
		if done {
			return true, err
		}
	}
	return done, nil
}

// visit opens one stream, and acts on how it ends: it was refused, or the
// request is over with it, or an attempt has failed after which another is due.
func (c *call) visit(ctx context.Context, p *Peer) (refused, done bool, err error) {
	got, err := c.stream(ctx, p)
	v := judge(err)
	c.learn(p, err)
	switch {
	case err == nil:
		c.r.tiers.completed(p)
		return false, true, nil
	case !v.retry:
		return false, true, c.giveUp(ctx, c.ended(p, err))
	}
	if refused = v.refusal && got == 0; refused {
		c.r.log.Info("request refused", "request", c.req.ID, "attempt", c.attempt, "instance", p.ID, "name", p.Name, "err", err)
		c.note(p, outcome{err: err, refused: true, again: c.r.tiers.began.Add(time.Duration(p.backoff.Load()))})
		c.broke(c.trace.Refused, p, err, v, c.attempts-c.spent)
		return true, false, nil
	}
	if v.paused {
		// It says nothing about the server, which may be asked again. But a
		// process that stands still again and again gets nowhere.
		if c.pauses++; c.pauses > c.attempts {
			v.counts = true
		}
	}
	if v.counts {
		c.spent++
	}
	if !v.paused {
		o := outcome{err: err}
		if !v.report {
			o.again = time.Now().Add(c.r.cfg.Cooldown) // as if it had been
		}
		c.note(p, o)
	}
	c.failed = append(c.failed, &AttemptError{Attempt: c.attempt, Instance: p.Instance, Err: err})
	last := c.spent >= c.attempts
	c.r.log.Info("stream broke", "request", c.req.ID, "attempt", c.attempt, "instance", p.ID, "name", p.Name,
		"kind", kindOf(err), "err", err, "items", c.next, "retry", !last)
	c.broke(c.trace.Break, p, err, v, c.attempts-c.spent)
	if last {
		return false, true, &AttemptsError{Attempts: c.failed, Err: ErrAttemptsUsedUp}
	}
	return false, false, nil
}

// stream opens one stream and yields its items; got is how many.
func (c *call) stream(ctx context.Context, p *Peer) (got int, err error) {
	began := time.Now()
	p.streams.Add(1)
	c.peer, c.owed = p, true
	p.asked(int64(began.Sub(c.r.tiers.began)))
	defer c.leave()
	req := stream.Request{
		ID: c.req.ID, To: p.to, Data: c.req.Data, From: c.from, Attempt: c.attempt,
		Timeout: c.req.Timeout, Headers: c.req.Headers, MaxSize: p.MaxRequest, Hooks: &c.hooks,
	}
	item := Item{Index: c.from, Attempt: c.attempt, Peer: p}
	for a, err := range c.r.cfg.Client.Stream(ctx, p.Address, req) {
		if err != nil {
			if answers(err) {
				c.served(began)
			}
			return item.Index - c.from, err
		}
		if item.Index == c.from {
			c.served(began)
			c.overloads = 0
		}
		item.Annotated = a
		if c.trace.Item != nil {
			c.trace.Item(item)
		}
		c.next = item.Index + 1
		if !c.yield(item, nil) {
			return item.Index + 1 - c.from, errLeft
		}
		item.Index++
	}
	c.served(began)
	return item.Index - c.from, nil
}

// leave notes that the stream is over.
func (c *call) leave() {
	c.peer.streams.Add(-1)
	if c.owed {
		c.owed = false
		c.peer.forget()
	}
}

// started notes that the instance has taken the request.
func (c *call) started() {
	if c.owed {
		c.owed = false
		if c.peer.answered() {
			c.peer.alive(c.r.tiers.clock())
		}
	}
}

// stale tells that a kept connection was replaced.
func (c *call) stale() {
	tell(c.trace.Stale, StaleEvent{Attempt: c.attempt, Instance: c.peer.Instance})
}

// served notes that the instance has answered as only one does that works.
func (c *call) served(began time.Time) {
	c.started()
	if c.peer.half.Load() != shut {
		c.r.tiers.serves(c.peer, began)
	}
}

// answers reports whether a stream ended in a way that shows that its server
// works.
func answers(err error) bool {
	return errors.Is(err, stream.Overloaded) || errors.Is(err, stream.Application)
}

// learn takes note of what concerns other requests too, beside reports.
func (c *call) learn(p *Peer, err error) {
	switch {
	case kindOf(err) == "", errors.Is(err, stream.Application):
		return
	case errors.Is(err, stream.Overloaded):
		c.overloads++
		c.r.tiers.backOff(p, retryAfter(err))
		return
	case errors.Is(err, stream.Draining):
		p.draining.Store(true)
	}
	if c.r.tiers.dropLost(p) {
		c.r.log.Warn("an instance that discovery had lost fails, and is given up",
			"endpoint", c.r.cfg.Endpoint, "instance", p.ID, "name", p.Name, "err", err)
	}
}

// note keeps how p has dealt with the request.
func (c *call) note(p *Peer, o outcome) {
	if c.tried == nil {
		c.tried = make(map[identity]outcome)
	}
	c.tried[p.identity()] = o
}

// broke reports p down if it is to blame, and tells the trace how its stream
// ended. Other requests need to know sooner than the trace does.
func (c *call) broke(f func(BreakEvent), p *Peer, err error, v verdict, attemptsLeft int) {
	var d Down
	isNew := false
	if v.report {
		d, isNew = c.r.reportDown(p, err, v.share)
	}
	tell(f, BreakEvent{Attempt: c.attempt, Instance: p.Instance, Err: err, Reported: v.report, AttemptsLeft: attemptsLeft, Time: time.Now()})
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
	c.broke(c.trace.Break, p, err, verdict{}, 0)
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

// isRefusedEnough reports whether so many instances have refused the request as
// overloaded that it asks no more.
func (c *call) isRefusedEnough() bool { return c.overloads >= overloadLimit*c.attempts }
