package router

import (
	"errors"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

const (
	// panicDelay is how long a request waits before it asks, in panic, an instance
	// that has not said how long to wait. Jitter adds up to half of that, so that
	// requests that fail together do not come back together.
	panicDelay = 500 * time.Millisecond
	// maxPanicDelay is the longest wait that an instance may ask for and still be
	// asked in panic: few callers wait longer than 5 s for a first item.
	maxPanicDelay = 5 * time.Second
)

// panicking is the last try of a request for which no instance is left, with
// [Config.Panic]. The word is Envoy's, which in panic balances load over unhealthy
// hosts too.
type panicking struct {
	peer *Peer     // nil while there is none
	at   time.Time // when it is asked
	used bool
}

// startPanic reports whether the request has an instance to ask in panic. It chooses
// the one that returns first of those that are down or have had the request.
func (c *call) startPanic(t *Tiers) bool {
	q := &c.panicking
	if !c.r.cfg.Panic || c.next > 0 || q.used {
		return false
	}
	if q.peer != nil {
		return true
	}
	now := time.Now()
	var best *Peer
	var first time.Time
	for _, p := range t.Source {
		returns, ok := c.returns(t, p, now)
		if ok && (best == nil || returns.Before(first)) && !p.is(isPanicked) {
			best, first = p, returns
		}
	}
	if best == nil || !best.set(isPanicked) {
		return false
	}
	delay := panicDelay
	if left := time.Duration(best.backoff.Load() - c.r.tiers.clock()); left > 0 {
		delay = left
	}
	q.peer, q.at = best, now.Add(delay+c.r.jitter(delay/2))
	return true
}

// returns returns when p could be asked without panic, and whether it may be asked
// in panic at all.
func (c *call) returns(t *Tiers, p *Peer, now time.Time) (at time.Time, ok bool) {
	o, tried := c.tried[p.identity()]
	d, down := t.Down[p.ID]
	left := time.Duration(p.backoff.Load() - c.r.tiers.clock())
	switch kind := kindOf(o.err); {
	case !tried && !down, left > maxPanicDelay:
		return at, false
	case kind == stream.Unresponsive || kind == stream.Stalled || isSilent(o.err):
		return at, false // it would be silent again
	case kind == stream.Draining || kind == stream.Misdirected || kind == stream.Unresumable:
		return at, false // it would refuse again
	case tried && retryAfter(o.err) > maxPanicDelay:
		return at, false
	case down:
		return d.Until, true
	}
	return now.Add(max(left, 0)), true
}

// isSilent reports whether a server has said that nothing came from what it asked.
func isSilent(err error) bool {
	b, ok := errors.AsType[*stream.Break](err)
	return ok && b.Silent
}

func (q *panicking) isDue() bool { return !time.Now().Before(q.at) }

// end lets other requests ask the instance in panic.
func (q *panicking) end() {
	if q.peer != nil {
		q.peer.unset(isPanicked)
		q.peer = nil
	}
}
