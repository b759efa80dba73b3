package router

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// do does what Do does without pings. loop, if not nil, is held while the functions of
// traces run.
func (r *Router) do(ctx context.Context, req Request, loop *sync.Mutex) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		c := r.newCall(&req, loop, yield)
		defer c.end(ErrLeft) // should the caller's loop panic
		err := c.run(ctx)
		if errors.Is(context.Cause(ctx), ErrLeft) {
			err = ErrLeft // while nothing came
		}
		c.end(err)
		if err != nil && !errors.Is(err, ErrLeft) {
			yield(Item{}, err)
		}
	}
}

// newCall returns the call of a request. What makes one, what opens a stream and what
// judges its end are functions of their own: while a stream runs, which may be long and
// one of thousands, their variables are not on its stack.
func (r *Router) newCall(req *Request, loop *sync.Mutex, yield func(Item, error) bool) *call {
	c := &call{r: r, req: *req, trace: req.Trace, yield: yield, attempts: r.cfg.Attempts}
	if req.Attempts > 0 {
		c.attempts = req.Attempts
	}
	if r.cfg.Trace != nil {
		c.trace = r.cfg.Trace().Then(req.Trace)
	}
	if c.trace == nil {
		c.trace = &Trace{}
	}
	if loop != nil {
		c.trace = c.trace.Locked(loop)
	}
	if c.req.ID == "" {
		c.req.ID = fmt.Sprintf("%016x", rand.Uint64())
	}
	c.hooks = stream.Hooks{Started: c.started, Stale: c.stale}
	return c
}

// call is one request that runs. It belongs to the caller's goroutine.
type call struct {
	r        *Router
	req      Request
	attempts int // its limit
	trace    *Trace
	yield    func(Item, error) bool

	attempt int   // the current one, from 1
	carry   carry // what it takes to carry the answer on; empty with Config.Restart
	from    int   // index of the first item that the current attempt wants
	next    int   // behind the index of the newest item that the caller has
	spent   int   // attempts that count against the limit
	pauses  int   // breaks that a pause of this process explains
	tried   map[identity]ending
	failed  []error // an *AttemptError each

	overloads       int  // refusals as overloaded since the last item
	askedBackingOff bool // it has asked one that was backing off
	panicking       panicking

	hooks stream.Hooks
	over  bool

	// Of the current choice.
	step   Step
	wanted Way // the only one that will do; "" for any
	way    Way
	peer   *Peer
	trial  uint32 // the trial that it has taken; 0 for none
	owed   bool   // it has yet to answer
	now    int64  // by the tiers' clock; 0 until it is needed

	declined bool // the picker takes none of a list
}

// end leaves what the request has taken to others, and tells that it is over.
func (c *call) end(err error) {
	if c.over {
		return
	}
	c.over = true
	c.endTrial()
	c.panicking.end()
	tell(c.trace.Done, DoneEvent{Request: c.req.ID, Err: err})
}

func (c *call) endTrial() {
	if c.trial != 0 {
		c.peer.passTrial(c.trial)
		c.trial = 0
	}
}

// run makes attempts until one ends the request.
func (c *call) run(ctx context.Context) error {
	if n := len(c.req.Prefix); c.req.From < 0 || n > 0 && c.req.From != 0 && c.req.From != n {
		return fmt.Errorf("request %s: %w: it begins at item %d, with %d items before it", c.req.ID, stream.ErrInvalidRequest, c.req.From, n)
	}
	if err := c.awaitSource(ctx); err != nil {
		return err
	}
	c.carry.comesBack(c.req.From, c.req.Prefix, c.r.tiers.load().allIndex, c.r.cfg.MaxPrefix)
	c.next = c.carry.next
	for c.attempt = 1; ; c.attempt++ {
		c.from = c.carry.next
		tell(c.trace.Attempt, AttemptEvent{Request: c.req.ID, Attempt: c.attempt, From: c.from})
		done, err := c.try(ctx)
		if done {
			return err
		}
	}
}

// try makes one attempt, and reports whether the request is over. After a refusal the
// attempt goes on at another instance.
func (c *call) try(ctx context.Context) (done bool, err error) {
	for refused := true; refused && !done; {
		p, err := c.pick(ctx)
		if err != nil {
			return true, c.giveUp(ctx, err)
		}
		c.chosen(p)
		got, err := c.stream(ctx, p)
		refused, done, err = c.ends(ctx, p, got, err)
		c.endTrial()
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

// chosen tells that p is asked.
func (c *call) chosen(p *Peer) {
	tell(c.trace.Chosen, ChosenEvent{Attempt: c.attempt, Instance: *p.Instance, Step: c.step, Way: c.carriedOn(), Trial: c.trial != 0})
}

// ends acts on the end of the stream at p, of which so many items came. If it returns
// neither refused nor done, the stream broke and another attempt is due.
func (c *call) ends(ctx context.Context, p *Peer, got int, err error) (refused, done bool, _ error) {
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
		c.r.log.Debug("request refused", "request", c.req.ID, "attempt", c.attempt, "instance", p.ID, "name", p.Name, "err", err)
		c.note(p, ending{err: err, refused: true, way: c.way, again: c.r.tiers.began.Add(time.Duration(p.backoff.Load()))})
		c.broke(c.trace.Refused, p, err, v, c.attempts-c.spent)
		return true, false, nil
	}
	if v.paused {
		// The break says nothing about the server, which may be asked again. The
		// bound is for a process that is paused again and again.
		if c.pauses++; c.pauses > c.attempts {
			v.counts = true
		}
	}
	if v.counts {
		c.spent++
	}
	if !v.paused {
		o := ending{err: err, way: c.way}
		if !v.report {
			o.again = time.Now().Add(c.r.cfg.Cooldown) // as if it had been reported
		}
		c.note(p, o)
	}
	c.failed = append(c.failed, &AttemptError{Attempt: c.attempt, Instance: *p.Instance, Err: err})
	diverged := errors.Is(err, stream.Diverged)
	if diverged {
		c.carry.diverged++
	}
	last := c.spent >= c.attempts || c.carry.diverged > 1
	c.r.log.Debug("stream broke", "request", c.req.ID, "attempt", c.attempt, "instance", p.ID, "name", p.Name,
		"kind", kindOf(err), "err", err, "items", c.next, "retry", !last)
	c.broke(c.trace.Break, p, err, v, c.attempts-c.spent)
	switch {
	case last && diverged:
		return false, true, &AttemptsError{Attempts: c.failed, Err: c.cannotResume(0)}
	case last:
		return false, true, &AttemptsError{Attempts: c.failed, Err: ErrAttemptsUsedUp}
	}
	return false, false, nil
}

// carriedOn returns the way in which the answer is carried on; "" when it is asked for
// the first time.
func (c *call) carriedOn() Way {
	if c.way == WayRestart && len(c.failed) == 0 {
		return ""
	}
	return c.way
}

// stream opens one stream and yields its items. got is how many came, with those that a
// replay held back.
func (c *call) stream(ctx context.Context, p *Peer) (got int, err error) {
	began := time.Now()
	p.streams.Add(1)
	c.peer, c.owed = p, true
	p.asked(int64(began.Sub(c.r.tiers.began)))
	defer c.leave()
	items, again := c.open(ctx, p)
	item := Item{Index: c.from, Attempt: c.attempt, Peer: p}
	for a, err := range items {
		if err != nil {
			err = asBreak(err)
			if answers(err) {
				c.served(began)
			}
			return got, err
		}
		if got++; got == 1 {
			c.served(began)
			c.overloads = 0
		}
		if again != nil {
			var isNew bool
			if a, isNew, err = again.next(a); err != nil {
				return got, err
			}
			if !isNew {
				continue
			}
		}
		item.Annotated = a
		if !c.r.cfg.Restart {
			if c.carry.next == 0 {
				c.carry.begins(c.r.tiers.load().allIndex)
			}
			c.carry.delivers(a, p, c.way, again, c.r.cfg.MaxPrefix)
		}
		if c.trace.Item != nil {
			c.trace.Item(item)
		}
		c.next = item.Index + 1
		if !c.yield(item, nil) {
			return got, ErrLeft
		}
		item.Index++
	}
	c.served(began)
	if again != nil {
		err = again.end()
	}
	return got, err
}

// open returns the items of a stream to p, and what compares them if they are an answer
// that begins anew.
func (c *call) open(ctx context.Context, p *Peer) (items iter.Seq2[stream.Annotated, error], again *replay) {
	req := stream.Request{
		ID: c.req.ID, To: p.record(), Data: c.req.Data, From: c.from, Attempt: c.attempt,
		Timeout: c.req.Timeout, Headers: c.req.Headers, MaxSize: p.MaxRequest, Hooks: &c.hooks,
	}
	switch c.way {
	case WayPrefix:
		req.Prefix = c.carry.kept.All()
	case WayReplay:
		req.From = 0
		again = newReplay(c.carry.kept.All())
	case WayIndex, WayRestart:
	}
	return c.r.cfg.Client.Stream(ctx, *p.Instance, req), again
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
	tell(c.trace.Stale, StaleEvent{Attempt: c.attempt, Instance: *c.peer.Instance})
}

// served notes that the instance has answered a request sent at began, and so works.
func (c *call) served(began time.Time) {
	c.started()
	if c.peer.HalfOpen() {
		c.r.tiers.serves(c.peer, began)
	}
}

// answers reports whether the end of a stream shows that its server works.
func answers(err error) bool {
	return errors.Is(err, stream.Overloaded) || errors.Is(err, stream.Application)
}

// learn notes what the end of a stream at p means for other requests, beside reports.
func (c *call) learn(p *Peer, err error) {
	switch {
	case kindOf(err) == "", errors.Is(err, stream.Application):
		return
	case errors.Is(err, stream.Overloaded):
		c.overloads++
		c.r.tiers.backOff(p, retryAfter(err))
		return
	case errors.Is(err, stream.Unresumable):
		c.carry.replayOnly = true
	case errors.Is(err, stream.Draining):
		p.set(isDraining)
	}
	if c.r.tiers.dropLost(p) {
		c.r.log.Warn("an instance that discovery had lost fails, and is given up",
			"endpoint", c.r.cfg.Endpoint, "instance", p.ID, "name", p.Name, "err", err)
	}
}

// note remembers how the stream at p ended.
func (c *call) note(p *Peer, o ending) {
	if c.tried == nil {
		c.tried = make(map[identity]ending)
	}
	o.kind = kindOf(o.err)
	c.tried[p.identity()] = o
}

// broke reports p down if the verdict says so, and calls the trace's f. The report
// comes first, so that a slow trace keeps no request at p.
func (c *call) broke(f func(BreakEvent), p *Peer, err error, v verdict, attemptsLeft int) {
	var d Down
	isNew := false
	if v.report {
		d, isNew = c.r.reportDown(p, err, v.share)
	}
	tell(f, BreakEvent{Attempt: c.attempt, Instance: *p.Instance, Err: err, Reported: v.report, AttemptsLeft: attemptsLeft, Time: time.Now()})
	if isNew {
		tell(c.trace.Down, d)
	}
}

// ended returns the error of a stream that ends the request. If it is a break, and
// not the caller's doing, the trace learns of it.
func (c *call) ended(p *Peer, err error) error {
	if kindOf(err) == "" {
		return err
	}
	c.broke(c.trace.Break, p, err, verdict{}, 0)
	return &AttemptError{Attempt: c.attempt, Instance: *p.Instance, Err: err}
}

// giveUp returns the error of a request that ends because of err.
func (c *call) giveUp(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, ErrLeft):
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
