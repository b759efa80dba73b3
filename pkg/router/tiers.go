package router

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// Down is an instance that is out of instance_avail.
type Down struct {
	Instance discovery.Instance
	// Cause is the break that was reported.
	Cause        error
	Since, Until time.Time
}

// Tiers is the two tiers at one moment. It may be shared: do not change it.
type Tiers struct {
	// Source is instance_source, sorted by id: every instance that requests can
	// be sent to and that discovery lists.
	Source []*Peer
	// Avail is instance_avail: the source less those that are down, and less
	// those that other clients have reported.
	Avail []*Peer
	// Spare is the instances that only the reports of others keep out of
	// Avail. A request for which nothing else is left goes to one of them.
	Spare []*Peer
	// Lost is the instances that discovery has lost together with most others,
	// and not because they said that they leave. They are no part of Source,
	// and the last resort of a request.
	Lost []*Peer
	// Down holds this router's own reports whose cooldown has not passed, also
	// of instances that have left the source meanwhile.
	Down map[discovery.InstanceID]Down
	// Reported holds the reports of other clients that stand; of several about
	// one instance, the one that ends last.
	Reported map[discovery.InstanceID]discovery.Report
	// BackingOff is how many instances of Avail have refused a request as
	// overloaded and are spared for a while.
	BackingOff int
	// Stale is nil while Source is current; else why discovery can't be read.
	Stale error

	ready    []*Peer       // Avail less those that back off
	names    *nameIndex    // of Source
	listed   bool          // the source has been read at least once
	unasked  bool          // the reports of others have not been read yet
	replaced chan struct{} // closed when a newer one takes its place
}

// The pace of making the lists anew, which takes one pass over the source: at
// once where that is short, else so seldom that thousands of instances that fail
// one by one cost little more than one. Whoever chooses meanwhile finds the mark
// on the instance.
const (
	shortSource = 100
	pace        = 5 * time.Millisecond
)

// tiers keeps the current [Tiers] behind an atomic pointer. Readers load it and
// never lock. Writers lock, change what is below mu, and mark instances; the
// lists follow, at the pace above.
type tiers struct {
	cooldown, maxCooldown time.Duration
	saidDraining          func(addr string) bool // nil if nobody knows

	began   time.Time // of the clock
	kick    chan struct{}
	current atomic.Pointer[Tiers]
	dirty   atomic.Bool  // current lags behind
	due     atomic.Int64 // when, by the clock, something ends

	mu      sync.Mutex // guards what follows
	next    Tiers      // less the lists that rebuild makes
	rebuilt time.Time
	timed   map[*state]*Peer     // those that are down or back off
	back    []discovery.Instance // those that returned and nobody was told of
	heard   map[discovery.InstanceID][]heard
	away    map[discovery.InstanceID]away
}

// init readies t; with reports, no request goes out before they were read.
func (t *tiers) init(reports bool) {
	t.began = time.Now()
	t.kick = make(chan struct{}, 1)
	t.timed = make(map[*state]*Peer)
	t.away = make(map[discovery.InstanceID]away)
	t.next = Tiers{unasked: reports, names: &nameIndex{}}
	t.current.Store(&Tiers{unasked: reports, names: t.next.names, replaced: make(chan struct{})})
	t.due.Store(math.MaxInt64)
}

// load returns the tiers as they were a few milliseconds ago, or later.
func (t *tiers) load() *Tiers { return t.current.Load() }

// fresh returns the tiers as they are.
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
	signal(t.kick) // there is a new deadline
	return t.load()
}

// clock is the time since t began, as the marks of instances have it.
func (t *tiers) clock() int64 { return int64(time.Since(t.began)) }

// changed lets the lists follow. The caller holds mu.
func (t *tiers) changed(now time.Time) {
	t.dirty.Store(true)
	if len(t.next.Source) <= shortSource || !now.Before(t.rebuilt.Add(pace)) {
		t.rebuild(now)
	}
	signal(t.kick) // for the rest, or for a deadline that is new
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
		if s.down.Load() {
			next.Down[s.report.Instance.ID] = s.report
		}
	}
	next.Reported = longest(t.heard)
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
		case p.down.Load():
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

// setSource takes over what discovery lists, and returns how many instances are
// kept as lost from now on. An instance stays what it is to the router whoever
// joins, leaves or comes back; one that was started anew under the same id is
// another.
func (t *tiers) setSource(set discovery.Instances) (tiers *Tiers, lost int) {
	list := set.List
	byID := func(a, b discovery.Instance) int { return cmp.Compare(a.ID, b.ID) }
	if !slices.IsSortedFunc(list, byID) {
		list = slices.SortedStableFunc(slices.Values(list), byID)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	known := t.next.Source
	source := make([]*Peer, 0, len(list))
	for _, i := range list {
		if !i.Routable() {
			continue
		}
		for len(known) > 0 && known[0].ID < i.ID {
			t.leaves(known[0], now)
			known = known[1:]
		}
		var p *Peer
		if len(known) > 0 && known[0].ID == i.ID {
			p, known = known[0], known[1:]
		}
		source = append(source, t.joins(p, i))
	}
	for _, p := range known {
		t.leaves(p, now)
	}
	if !slices.Equal(source, t.next.Source) {
		t.next.names = &nameIndex{}
	}
	t.next.Source, t.next.listed, t.next.Stale = source, true, set.Stale
	lost = t.sortAway(now)
	t.rebuild(now)
	signal(t.kick)
	return t.load(), lost
}

// joins returns the peer that i is, which was p or is away, or nobody.
func (t *tiers) joins(p *Peer, i discovery.Instance) *Peer {
	if p == nil {
		a, ok := t.away[i.ID]
		if !ok {
			return newPeer(i)
		}
		delete(t.away, i.ID)
		p = a.peer
	}
	switch {
	case p.Instance == i:
		return p
	case p.Same(i):
		return p.withRecord(i)
	}
	delete(t.timed, p.state)
	return newPeer(i)
}

// setStale marks the source as stale for the reason err.
func (t *tiers) setStale(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next.Stale = err
	t.rebuild(time.Now())
}

// report puts p down from now until its cooldown has passed, and returns that
// report. While p is down, further reports change nothing: many streams that
// break at once are one failure. Nor does a report of one that has since been
// started anew: the new one has not failed.
func (t *tiers) report(p *Peer, cause error, now time.Time) (d Down, isNew bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !t.isCurrent(p, now):
		return Down{}, false
	case p.down.Load():
		return p.report, false
	}
	p.failures++
	d = Down{Instance: p.Instance, Cause: cause, Since: now, Until: now.Add(t.cooldownAfter(p.failures))}
	p.report = d
	p.half.Store(shut) // until it is back
	p.down.Store(true)
	t.ends(p, d.Until)
	t.changed(now)
	return d, true
}

// ends notes that something about p ends then. The caller holds mu.
func (t *tiers) ends(p *Peer, at time.Time) {
	t.timed[p.state] = p
	t.due.Store(min(t.due.Load(), int64(at.Sub(t.began))))
}

// backOff spares p for a while.
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
		return // nobody asks
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p.failures = 0
}

// serves notes that p has answered a request that was sent at began. If it was
// half-open then, it no longer is, and the reports that stood then are refuted.
func (t *tiers) serves(p *Peer, began time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.half.Load() == shut || p.halfSince.After(began) {
		return
	}
	p.outweighs = began
	p.half.Store(shut)
	if len(t.heard[p.ID]) > 0 {
		t.changed(time.Now())
	}
}

// opens makes p half-open. The caller holds mu.
func (t *tiers) opens(p *Peer, now time.Time) {
	p.halfSince = now
	p.half.CompareAndSwap(shut, halfOpen)
}

// doNotWait lets requests go out although the reports of others are not known.
func (t *tiers) doNotWait() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next.unasked {
		t.next.unasked = false
		t.rebuild(time.Now())
	}
}

// reconcile ends what is over and lets the lists follow. It returns the
// instances that this router had taken out and that are back, and when it is to
// be called again (zero for never).
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
// time of lost instances. The caller holds mu.
func (t *tiers) end(now time.Time) {
	var deadline time.Time
	// over reports whether a time has come, and else takes note of it.
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
		if s.down.Load() && over(s.report.Until) {
			t.opens(p, now) // before it can be chosen
			s.down.Store(false)
			t.back = append(t.back, s.report.Instance)
			ended = true
		}
		if until := s.backoff.Load(); until != 0 && over(t.began.Add(time.Duration(until))) {
			s.backoff.Store(0)
			ended = true
		}
		if !s.down.Load() && s.backoff.Load() == 0 {
			delete(t.timed, s)
		}
	}
	// The store ends these too, but not while it can't be read.
	for id, reports := range t.heard {
		if left := slices.DeleteFunc(reports, func(h heard) bool { return over(h.until) }); len(left) == 0 {
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
