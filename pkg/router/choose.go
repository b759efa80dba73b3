package router

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// pickTries is how often the picker may return an unfit instance before the list is
// filtered. Few instances in a list are unfit, so the first pick nearly always fits,
// and filtering thousands because of a few would cost more.
const pickTries = 4

// Step says why an instance was chosen. Each step is for requests for which the
// steps before it have no instance left.
type Step string

// The steps, in order.
const (
	// StepNamed: the request has asked for it.
	StepNamed Step = "named"
	// StepPreferred: the request prefers it, and it is as in StepAvail.
	StepPreferred Step = "preferred"
	// StepAvail: it is available, and not passed over.
	StepAvail Step = "avail"
	// StepPassedOver: it is available, but backs off, owes a start, or is
	// half-open and tried by another request.
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
	return []Step{StepNamed, StepPreferred, StepAvail, StepPassedOver, StepReported, StepLost, StepAgain, StepPanic}
}

// ending is how the last stream of the request at an instance ended.
type ending struct {
	err     error
	kind    stream.Kind
	refused bool // not a break
	way     Way  // in which it was asked
	// again is when the instance may be asked again. This request asks again only
	// an instance where it broke.
	again time.Time
}

// pick returns the instance to which the request goes next. The error says why there
// is none.
func (c *call) pick(ctx context.Context) (*Peer, error) {
	if ctx.Err() == nil {
		// Slightly old tiers will do, unless no instance is found in them.
		if p := c.choose(c.r.tiers.load()); p != nil {
			return p, nil
		}
	}
	return c.await(ctx)
}

// await is pick for a request that does not find an instance at once.
func (c *call) await(ctx context.Context) (*Peer, error) {
	var w wait
	defer w.stop()
	for {
		if ctx.Err() != nil {
			return nil, c.contextError(ctx)
		}
		t := c.r.tiers.fresh()
		p := c.choose(t)
		switch {
		case p != nil:
			c.panicking.end()
			return p, nil
		case c.startPanic(t):
			if c.panicking.isDue() {
				return c.take(c.panicking.peer, StepPanic), nil
			}
			w.until(c.panicking.at)
		case w.over() || !c.mayWait(t):
			return nil, c.nobodyLeft(t, w.limit)
		default:
			w.within(c.waitRestore())
			w.until(c.soonest(t))
		}
		select {
		case <-t.replaced:
		case <-w.timer():
		case <-ctx.Done():
		case <-c.r.ctx.Done():
			return nil, c.closed()
		}
	}
}

// choose returns an instance of the first step that has one, or nil.
func (c *call) choose(t *Tiers) *Peer {
	if c.isRefusedEnough() {
		return nil
	}
	c.now, c.declined = 0, false
	if c.req.Instance != "" || c.req.Prefer != "" {
		if p := c.chooseNamed(t); p != nil {
			return p
		}
		if p := c.choosePreferred(t); p != nil {
			return p
		}
	}
	if p := c.chooseByWay(t, t.ready, StepAvail); p != nil {
		return p
	}
	if !c.askedBackingOff || t.BackingOff < len(t.Avail) {
		if p := c.chooseByWay(t, t.Avail, StepPassedOver); p != nil {
			return p
		}
	}
	if p := c.chooseByWay(t, t.Spare, StepReported); p != nil {
		return p
	}
	if p := c.chooseByWay(t, t.Lost, StepLost); p != nil {
		return p
	}
	return c.chooseAgain(t)
}

// chooseByWay returns one of peers, a list of t, that fits a step, or nil. An answer that
// has begun goes to one that can carry it on in a better way, if there is any.
func (c *call) chooseByWay(t *Tiers, peers []*Peer, step Step) *Peer {
	if c.carry.next == 0 || !t.mixed {
		return c.chooseFrom(peers, step)
	}
	return c.chooseByBestWay(t, peers, step)
}

func (c *call) chooseByBestWay(t *Tiers, peers []*Peer, step Step) *Peer {
	defer func() { c.wanted = "" }()
	for _, c.wanted = range c.carry.ways() {
		if p := c.chooseFrom(t.resuming(peers, step, c.wanted), step); p != nil {
			return p
		}
	}
	return nil
}

// chooseNamed returns the instance that the request asks for, unless it is down. The
// caller's wish goes before the reports of others and before a backoff.
func (c *call) chooseNamed(t *Tiers) *Peer {
	if c.req.Instance == "" || c.attempt != 1 || len(c.tried) > 0 {
		return nil
	}
	for _, peers := range [][]*Peer{t.meant(c.req.Instance), t.meantLost(c.req.Instance)} {
		for _, p := range peers {
			if !p.is(isDown) {
				return c.take(p, StepNamed)
			}
		}
	}
	return nil
}

// choosePreferred returns the instance that the request prefers, if it is available and
// not passed over.
func (c *call) choosePreferred(t *Tiers) *Peer {
	if c.req.Prefer == "" {
		return nil
	}
	for _, p := range t.meant(c.req.Prefer) {
		if find(t.ready, p.ID) == p && c.fits(p, StepAvail) && c.take(p, StepAvail) != nil {
			c.step = StepPreferred
			return p
		}
	}
	return nil
}

// chooseFrom returns one of peers that fits a step, or nil.
func (c *call) chooseFrom(peers []*Peer, step Step) *Peer {
	if len(peers) == 0 {
		return nil
	}
	var last *Peer
	for range pickTries {
		p := c.ask(peers)
		if p == nil {
			return nil
		}
		if p == last {
			break // it would go on so
		}
		if c.fits(p, step) && c.take(p, step) != nil {
			return p
		}
		last = p
	}
	var left []*Peer
	for _, p := range peers {
		if c.fits(p, step) {
			left = append(left, p)
		}
	}
	for len(left) > 0 {
		p := c.ask(left)
		if p == nil || c.take(p, step) != nil {
			return p
		}
		left = without(left, p) // another request has taken its trial first
	}
	return nil
}

// ask has the picker pick one of peers. It returns nil if the picker takes none.
func (c *call) ask(peers []*Peer) *Peer {
	p := c.r.cfg.Picker.Pick(Choice{Key: c.req.Key, Attempt: c.attempt, Prefix: c.carry.whole}, peers)
	c.declined = c.declined || p == nil
	return p
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

// fits reports whether the request can go to p in a step.
func (c *call) fits(p *Peer, step Step) bool {
	if c.carry.next > 0 && !c.canCarryOn(p) || len(c.tried) > 0 && c.hasTried(p) {
		return false
	}
	if p.isUnmarked() {
		return step != StepLost || !c.r.tiers.isLeaving(p)
	}
	if p.is(isDown) {
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

// take chooses p, and takes the trial if p is half-open. It returns nil if p no
// longer fits.
func (c *call) take(p *Peer, step Step) *Peer {
	if p.HalfOpen() {
		c.trial = p.takeTrial()
		if c.trial == 0 && step == StepAvail {
			return nil
		}
	}
	c.peer, c.step, c.way = p, step, c.wayOf(p)
	if step != StepAvail && p.isBackingOff(c.r.tiers.clock()) {
		c.askedBackingOff = true
	}
	return p
}

// chooseAgain returns an instance where this request broke and that is back, if
// the request may wait for one to return.
func (c *call) chooseAgain(t *Tiers) (best *Peer) {
	if c.waitRestore() <= 0 {
		return nil
	}
	now := time.Now()
	var since time.Time
	for id, o := range c.tried {
		p := t.byID(id.id)
		if p == nil || p.identity() != id || o.refused || p.is(isDown) || o.again.After(now) ||
			c.wayOf(p) == "" || o.kind == stream.Diverged {
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

// canCarryOn reports whether p can carry the answer on, in the way that is wanted now.
func (c *call) canCarryOn(p *Peer) bool {
	way := c.wayOf(p)
	return way != "" && (c.wanted == "" || way == c.wanted)
}

// wayOf returns how p can carry the answer on, as far as is known; "" if it cannot.
func (c *call) wayOf(p *Peer) Way { return c.carry.way(p, len(c.req.Data)) }

// hasTried reports whether p has broken or refused the request, and is not asked again.
// One that could not go on from where it was asked to may still begin anew.
func (c *call) hasTried(p *Peer) bool {
	o, tried := c.tried[p.identity()]
	return tried && (o.kind != stream.Unresumable || o.way == WayReplay || c.wayOf(p) != WayReplay)
}

// contextError says that ctx has ended, and why, if its owner gave a cause.
func (c *call) contextError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return fmt.Errorf("request %s: %w", c.req.ID, cause)
	}
	return fmt.Errorf("request %s: %w: %w", c.req.ID, err, cause)
}
