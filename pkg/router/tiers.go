package router

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/internal/signal"
)

// Making the lists anew takes one pass over the source. Where that is short it is
// done at once, else once a pace, so that thousands of instances that fail one by
// one cost little more than one. Requests that choose meanwhile see the marks on the
// instances themselves.
const (
	shortSource = 100
	pace        = 5 * time.Millisecond
)

// tiers keeps the current [Tiers] behind an atomic pointer. Readers load it and
// never lock. Writers lock, change the fields below mu, and mark instances; the
// lists follow within a pace.
type tiers struct {
	cooldown, maxCooldown time.Duration
	routable              func(discovery.Instance) bool
	saidDraining          func(discovery.Instance) bool // of the client; nil if it has none

	began   time.Time     // of the clock
	kick    chan struct{} // wakes the reconcile loop
	current atomic.Pointer[Tiers]
	dirty   atomic.Bool  // current is behind
	due     atomic.Int64 // when, by the clock, something ends

	mu      sync.Mutex // guards what follows
	next    Tiers      // less the lists that rebuild makes
	rebuilt time.Time
	timed   map[*state]*Peer     // those that are down or back off
	back    []discovery.Instance // those that are back and not yet logged
	heard   map[discovery.InstanceID][]heard
	away    map[discovery.InstanceID]away
}

// init makes t ready. With reports, requests wait until these have been read.
func (t *tiers) init(reports bool) {
	t.began = time.Now()
	t.kick = make(chan struct{}, 1)
	t.timed = make(map[*state]*Peer)
	t.away = make(map[discovery.InstanceID]away)
	t.next = Tiers{unasked: reports, names: &nameIndex{}}
	t.current.Store(&Tiers{unasked: reports, names: t.next.names, replaced: make(chan struct{})})
	t.due.Store(math.MaxInt64)
}

// load returns the tiers, which may be a few milliseconds old.
func (t *tiers) load() *Tiers { return t.current.Load() }

// fresh returns the tiers as they are now.
func (t *tiers) fresh() *Tiers {
	if !t.dirty.Load() && t.clock() < t.due.Load() {
		return t.load()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.end(now)
	if t.dirty.Load() {
		t.rebuild(now)
	}
	signal.Send(t.kick) // there is a new deadline
	return t.load()
}

// clock is the time since t began, in nanoseconds, as in the marks of instances.
func (t *tiers) clock() int64 { return int64(time.Since(t.began)) }

// changed makes the lists anew, now or within a pace. The caller holds mu.
func (t *tiers) changed(now time.Time) {
	t.dirty.Store(true)
	if len(t.next.Source) <= shortSource || !now.Before(t.rebuilt.Add(pace)) {
		t.rebuild(now)
	}
	signal.Send(t.kick) // for the rest, or for a deadline that is new
}

// rebuild makes the lists anew and swaps them in. The caller holds mu.
func (t *tiers) rebuild(now time.Time) {
	next := t.next
	next.Avail, next.ready = next.Source, next.Source
	if len(t.timed) > 0 || len(t.heard) > 0 {
		t.divide(&next, now)
	}
	for _, a := range t.away {
		if a.lost {
			next.Lost = append(next.Lost, a.peer)
		}
	}
	slices.SortFunc(next.Lost, func(a, b *Peer) int { return cmp.Compare(a.ID, b.ID) })
	next.Down = make(map[discovery.InstanceID]Down, len(t.timed))
	for s := range t.timed {
		if s.is(isDown) {
			next.Down[s.past.report.Instance.ID] = s.past.report
		}
	}
	next.ByOthers = longest(t.heard)
	next.able = &ableIndex{}
	next.replaced = make(chan struct{})
	t.rebuilt = now
	t.dirty.Store(false)
	close(t.current.Swap(&next).replaced)
}

// divide puts each instance of the source in its list.
func (t *tiers) divide(next *Tiers, now time.Time) {
	clock := int64(now.Sub(t.began))
	next.Avail, next.ready = make([]*Peer, 0, len(next.Source)), nil
	for _, p := range next.Source {
		out := len(t.heard) > 0 && t.isOut(p, now)
		switch {
		case p.is(isDown):
		case out:
			next.Spare = append(next.Spare, p)
		default:
			if p.isBackingOff(clock) {
				if next.BackingOff++; next.BackingOff == 1 {
					next.ready = append(make([]*Peer, 0, len(next.Source)), next.Avail...)
				}
			} else if next.BackingOff > 0 {
				next.ready = append(next.ready, p)
			}
			next.Avail = append(next.Avail, p)
		}
	}
	if next.BackingOff == 0 {
		next.ready = next.Avail
	}
}

// report puts p down from now until its cooldown has passed, and returns that
// report. While p is down, further reports change nothing: many streams that
// break at once are one failure. A report of a server that has been started anew
// since changes nothing either: the new one has not failed.
func (t *tiers) report(p *Peer, cause error, now time.Time) (d Down, isNew bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !t.isCurrent(p, now):
		return Down{}, false
	case p.is(isDown):
		return p.past.report, false
	}
	past := p.remember()
	past.failures++
	d = Down{Instance: *p.Instance, Cause: cause, Since: now, Until: now.Add(t.cooldownAfter(past.failures))}
	past.report = d
	p.shuts() // until it is back
	p.set(isDown)
	t.ends(p, d.Until)
	t.changed(now)
	return d, true
}

// ends notes that p is down or backs off until a time. The caller holds mu.
func (t *tiers) ends(p *Peer, at time.Time) {
	t.timed[p.state] = p
	t.due.Store(min(t.due.Load(), int64(at.Sub(t.began))))
}

// backOff makes requests pass over p for the time that p asked for, 0 if it did
// not say.
func (t *tiers) backOff(p *Peer, asked time.Duration) {
	if asked <= 0 {
		asked = defaultBackoff
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if !t.isCurrent(p, now) {
		return
	}
	until := now.Add(min(asked, maxBackoff))
	p.backoff.Store(int64(until.Sub(t.began)))
	t.ends(p, until)
	t.changed(now)
}

// cooldownAfter returns how long the nth failure in a row keeps an instance down.
func (t *tiers) cooldownAfter(n int) time.Duration {
	d := t.cooldown
	for ; n > 1 && d < t.maxCooldown; n-- {
		d = min(2*d, t.maxCooldown)
	}
	return d
}

// completed notes that p has served a whole stream.
func (t *tiers) completed(p *Peer) {
	if t.maxCooldown <= t.cooldown {
		return // failures do not matter
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.past != nil {
		p.past.failures = 0
	}
}

// serves notes that p has answered a request that was sent at began. If p was
// half-open then, it no longer is, and the reports that stood then are refuted.
func (t *tiers) serves(p *Peer, began time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !p.HalfOpen() || p.recall().halfSince.After(began) {
		return
	}
	p.remember().outweighs = began
	p.shuts()
	if len(t.heard[p.ID]) > 0 {
		t.changed(time.Now())
	}
}

// opens makes p half-open. The caller holds mu.
func (t *tiers) opens(p *Peer, now time.Time) {
	p.remember().halfSince = now
	p.opens()
}

// doNotWait lets requests go out before the reports of others have been read.
func (t *tiers) doNotWait() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next.unasked {
		t.next.unasked = false
		t.rebuild(time.Now())
	}
}

// reconcile ends what is over and makes the lists anew. It returns the instances
// that are back from this router's own reports, and when to call it again (zero for
// never).
func (t *tiers) reconcile(now time.Time) (back []discovery.Instance, again time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.due.Load() <= int64(now.Sub(t.began)) || t.dirty.Load() {
		if next := t.rebuilt.Add(pace); len(t.next.Source) > shortSource && now.Before(next) {
			return nil, next
		}
		t.end(now)
		if t.dirty.Load() {
			t.rebuild(now)
		}
	}
	back, t.back = t.back, nil
	return back, t.dueTime()
}

func (t *tiers) dueTime() time.Time {
	if due := t.due.Load(); due != math.MaxInt64 {
		return t.began.Add(time.Duration(due))
	}
	return time.Time{}
}

// end ends what is over: own reports, backoffs, the reports of others, and the
// keeping of lost instances. The caller holds mu.
func (t *tiers) end(now time.Time) {
	var deadline time.Time
	// over reports whether a time has come; if not, it may be the next deadline.
	over := func(until time.Time) bool {
		if !until.After(now) {
			return true
		}
		if deadline.IsZero() || until.Before(deadline) {
			deadline = until
		}
		return false
	}
	ended := false
	for s, p := range t.timed {
		if s.is(isDown) && over(s.past.report.Until) {
			t.opens(p, now) // before it can be chosen
			s.unset(isDown)
			t.back = append(t.back, s.past.report.Instance)
			ended = true
		}
		if until := s.backoff.Load(); until != 0 && over(t.began.Add(time.Duration(until))) {
			s.backoff.Store(0)
			ended = true
		}
		if !s.is(isDown) && s.backoff.Load() == 0 {
			delete(t.timed, s)
		}
	}
	// The store ends reports too, but not while it can't be read.
	for id, reports := range t.heard {
		if left := slices.DeleteFunc(reports, func(h heard) bool { return over(h.Until) }); len(left) == 0 {
			delete(t.heard, id)
			ended = true
		} else if len(left) < len(reports) {
			t.heard[id] = left
			ended = true
		}
	}
	for id, a := range t.away {
		if a.lost && over(a.until) {
			delete(t.away, id)
			ended = true
		}
	}
	due := int64(math.MaxInt64)
	if !deadline.IsZero() {
		due = int64(deadline.Sub(t.began))
	}
	t.due.Store(due)
	if ended {
		t.dirty.Store(true)
	}
}
