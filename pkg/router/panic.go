package router

import (
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

const (
	// panicDelay is how long a request waits before it asks an instance that
	// has not said how long. The wait is up to half as long again, so that
	// the requests of a moment do not come back in one.
	panicDelay = 500 * time.Millisecond
	// maxPanicDelay is the longest that an instance can have asked for and be
	// asked all the same: a caller would not wait longer.
	maxPanicDelay = 5 * time.Second
)

// panicking is the one more try of a request for which nobody is left, with
// [Config.Panic]. Envoy calls it a panic when it balances load over hosts that it
// takes for dead, as the others are worse.
type panicking struct {
	peer *Peer     // nil while there is none
	at   time.Time // when it is asked
	used bool
}

// startPanic reports whether the request has somebody to ask in its panic, and
// chooses who that is: of those that are down or have had the request, the one
// that is first to return.
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
		if ok && (best == nil || returns.Before(first)) && !p.panicked.Load() {
			best, first = p, returns
		}
	}
	if best == nil || !best.panicked.CompareAndSwap(false, true) {
		return false
	}
	delay := panicDelay
	if left := time.Duration(best.backoff.Load() - c.r.tiers.clock()); left > 0 {
		delay = left
	}
	q.peer, q.at = best, now.Add(delay+c.r.jitter(delay/2))
	return true
}

// returns returns when p could be asked without panic, and whether it may be
// asked in it at all.
func (c *call) returns(t *Tiers, p *Peer, now time.Time) (at time.Time, ok bool) {
	o, tried := c.tried[p.identity()]
	d, down := t.Down[p.ID]
	left := time.Duration(p.backoff.Load() - c.r.tiers.clock())
	switch kind := kindOf(o.err); {
	case !tried && !down, left > maxPanicDelay:
		return at, false
	case kind == stream.Unresponsive || kind == stream.Stalled:
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

func (q *panicking) isDue() bool { return !time.Now().Before(q.at) }

// end lets other requests panic over the instance.
func (q *panicking) end() {
	if q.peer != nil {
		q.peer.panicked.Store(false)
		q.peer = nil
	}
}
