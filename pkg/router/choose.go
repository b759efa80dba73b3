package router

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// pickTries is how often the picker may return an instance that will not do
// before the instances are filtered. Few are marked that are still in a list, so
// the first choice nearly always does; and filtering thousands of instances
// because a few are out would cost more.
const pickTries = 4

// Step says why an instance was chosen: each step is for a request for which
// those before it have nobody left.
type Step string

// The steps, in order.
const (
	// StepNamed: the request has asked for it.
	StepNamed Step = "named"
	// StepAvail: it is available, and nothing speaks against it.
	StepAvail Step = "avail"
	// StepPassedOver: it is available, but backs off, owes a start, or is
	// half-open and another request tries it.
	StepPassedOver Step = "passed_over"
	// StepReported: only the reports of other clients keep it out.
	StepReported Step = "reported"
	// StepLost: discovery has lost it together with most others.
	StepLost Step = "lost"
	// StepAgain: it broke this request before, and is back.
	StepAgain Step = "again"
	// StepPanic: it is down or has had the request, and [Config.Panic] is set.
	StepPanic Step = "panic"
)

// Steps returns all steps, in order.
func Steps() []Step {
	return []Step{StepNamed, StepAvail, StepPassedOver, StepReported, StepLost, StepAgain, StepPanic}
}

// outcome is how an instance that had the request has dealt with it.
type outcome struct {
	err     error
	refused bool // not a break
	// again is when the instance may be asked again: by this request only where
	// it broke it.
	again time.Time
}

// pick returns the instance to which the request goes next, or why there is
// none.
func (c *call) pick(ctx context.Context) (*Peer, error) {
	var w wait
	defer w.stop()
	for {
		if ctx.Err() != nil {
			return nil, c.contextError(ctx)
		}
		// First as cheap as can be; only who finds nobody looks closely.
		t := c.r.tiers.load()
		p := c.choose(t)
		if p == nil {
			if now := c.r.tiers.fresh(); now != t {
				t = now
				p = c.choose(t)
			}
		}
		switch {
		case p != nil:
			c.panicking.end()
			return p, nil
		case c.startPanic(t):
			if c.panicking.isDue() {
				c.step = StepPanic
				return c.panicking.peer, nil
			}
			w.until(c.panicking.at)
		case w.over() || !c.mayWait(t):
			return nil, c.nobodyLeft(t, w.limit)
		default:
			w.within(c.r.cfg.WaitRestore)
			w.until(c.soonest(t))
		}
		select {
		case <-t.replaced:
		case <-w.timer():
		case <-ctx.Done():
		case <-c.r.ctx.Done():
			return nil, ErrClosed
		}
	}
}

// choose returns the best instance that will do, or nil.
func (c *call) choose(t *Tiers) *Peer {
	if c.isRefusedEnough() {
		return nil
	}
	c.now = 0
	if p := c.chooseNamed(t); p != nil {
		return p
	}
	if p := c.chooseFrom(t.ready, StepAvail); p != nil {
		return p
	}
	if !c.askedBackingOff || t.BackingOff < len(t.Avail) {
		if p := c.chooseFrom(t.Avail, StepPassedOver); p != nil {
			return p
		}
	}
	if p := c.chooseFrom(t.Spare, StepReported); p != nil {
		return p
	}
	if p := c.chooseFrom(t.Lost, StepLost); p != nil {
		return p
	}
	return c.chooseAgain(t)
}

// chooseNamed returns the instance that the request asks for, unless it is down:
// what others have reported, or what it refused somebody else, does not overrule
// the caller.
func (c *call) chooseNamed(t *Tiers) *Peer {
	if c.req.Instance == "" || c.attempt != 1 || len(c.tried) > 0 {
		return nil
	}
	for _, peers := range [][]*Peer{t.meant(c.req.Instance), t.meantLost(c.req.Instance)} {
		for _, p := range peers {
			if !p.down.Load() {
				return c.take(p, StepNamed)
			}
		}
	}
	return nil
}

// chooseFrom returns one of peers that will do in a step, or nil.
func (c *call) chooseFrom(peers []*Peer, step Step) *Peer {
	if len(peers) == 0 {
		return nil
	}
	for range pickTries {
		if p := c.r.cfg.Picker.Pick(peers); c.fits(p, step) {
			if p = c.take(p, step); p != nil {
				return p
			}
		}
	}
	var left []*Peer
	for _, p := range peers {
		if c.fits(p, step) {
			left = append(left, p)
		}
	}
	for len(left) > 0 {
		p := c.r.cfg.Picker.Pick(left)
		if taken := c.take(p, step); taken != nil {
			return taken
		}
		left = without(left, p) // another request was quicker to take its trial
	}
	return nil
}

func without(peers []*Peer, p *Peer) []*Peer {
	n := 0
	for _, other := range peers {
		if other != p {
			peers[n] = other
			n++
		}
	}
	return peers[:n]
}

// fits reports whether p will do in a step.
func (c *call) fits(p *Peer, step Step) bool {
	if len(c.tried) > 0 && c.hasTried(p) || !c.canBegin(p) {
		return false
	}
	if p.isUnmarked() {
		return step != StepLost || !c.r.tiers.isLeaving(p)
	}
	if p.down.Load() {
		return false
	}
	if c.now == 0 {
		c.now = c.r.tiers.clock()
	}
	switch {
	case step == StepAvail:
		return !p.isPassedOver(c.now)
	case c.askedBackingOff && p.isBackingOff(c.now):
		return false
	}
	return step != StepLost || !c.r.tiers.isLeaving(p)
}

// take chooses p, and with it the trial if it is half-open. It returns nil if p
// will no longer do.
func (c *call) take(p *Peer, step Step) *Peer {
	if p.half.Load() != shut {
		c.trial = p.takeTrial()
		if c.trial == 0 && step == StepAvail {
			return nil
		}
	}
	c.step = step
	if step != StepAvail && p.isBackingOff(c.r.tiers.clock()) {
		c.askedBackingOff = true
	}
	return p
}

// chooseAgain returns one that broke this request and is back, if the request
// may wait for that.
func (c *call) chooseAgain(t *Tiers) (best *Peer) {
	if c.r.cfg.WaitRestore <= 0 {
		return nil
	}
	now := time.Now()
	var since time.Time
	for id, o := range c.tried {
		p := t.byID(id.id)
		if p == nil || p.identity() != id || o.refused || p.down.Load() || o.again.After(now) || !c.canBegin(p) {
			continue
		}
		if best == nil || o.again.Before(since) {
			best, since = p, o.again
		}
	}
	if best == nil {
		return nil
	}
	return c.take(best, StepAgain)
}

// canBegin reports whether p can begin at the item that the request wants, as
// far as its record says. The answer would be a refusal.
func (c *call) canBegin(p *Peer) bool { return c.from == 0 || p.Resume != discovery.ResumeNo }

// hasTried reports whether p has broken or refused the request.
func (c *call) hasTried(p *Peer) bool {
	_, tried := c.tried[p.identity()]
	return tried
}

// contextError says that ctx has ended, and why if its owner gave a cause.
func (c *call) contextError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return fmt.Errorf("request %s: %w", c.req.ID, cause)
	}
	return fmt.Errorf("request %s: %w: %w", c.req.ID, err, cause)
}
