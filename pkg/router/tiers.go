package router

import (
	"maps"
	"slices"
	"strconv"
	"strings"
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

	peer *Peer
}

// Tiers is the two tiers at one moment. It may be shared: do not change it.
type Tiers struct {
	// Source is instance_source: every instance that requests can be sent to
	// and that discovery lists.
	Source []*Peer
	// Avail is instance_avail: the source less those that are down, and less
	// those that other clients have reported.
	Avail []*Peer
	// Spare is the instances that only the reports of others keep out of
	// Avail. A request for which nothing else is left goes to one of them.
	Spare []*Peer
	// Down holds this router's own reports whose cooldown has not passed, also
	// of instances that have left the source meanwhile.
	Down map[discovery.InstanceID]Down
	// Reported holds the reports of other clients that stand; of several about
	// one instance, the one that ends last.
	Reported map[discovery.InstanceID]discovery.Report
	// Stale is nil while Source is current; else why discovery can't be read.
	Stale error

	listed   bool          // the source has been read at least once
	unasked  bool          // the reports of others have not been read yet
	replaced chan struct{} // closed when a newer one takes its place
}

// tiers holds the current [Tiers] behind an atomic pointer. Readers load it and
// never lock. Writers lock, copy, swap; what has been swapped in is not changed.
type tiers struct {
	cooldown, maxCooldown time.Duration

	current atomic.Pointer[Tiers]
	mu      sync.Mutex // of writers
}

// init readies t; with reports, no request goes out before they were read.
func (t *tiers) init(reports bool) {
	t.current.Store(&Tiers{unasked: reports, replaced: make(chan struct{})})
}

func (t *tiers) load() *Tiers { return t.current.Load() }

// swap makes next, a changed copy of the current tiers, the current ones. The
// caller holds mu.
func (t *tiers) swap(next Tiers) *Tiers {
	next.Avail, next.Spare = next.Source, nil
	if len(next.Down) > 0 || len(next.Reported) > 0 {
		next.Avail = make([]*Peer, 0, len(next.Source))
		for _, p := range next.Source {
			if _, down := next.Down[p.ID]; down {
				continue
			}
			if report, ok := next.Reported[p.ID]; ok && report.Incarnation == p.Incarnation {
				next.Spare = append(next.Spare, p)
			} else {
				next.Avail = append(next.Avail, p)
			}
		}
	}
	next.replaced = make(chan struct{})
	close(t.current.Swap(&next).replaced)
	return &next
}

// setSource takes over what discovery lists. A report stays as it is whoever
// joins, leaves or comes back, but for an instance whose record has changed: one
// that has been started anew under the same id.
func (t *tiers) setSource(list discovery.Instances) *Tiers {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := *t.load()
	next.Down = maps.Clone(next.Down)
	known := make(map[discovery.InstanceID]*Peer, len(next.Source)+len(next.Down))
	for id, d := range next.Down {
		known[id] = d.peer // it may have left, and come back now
	}
	for _, p := range next.Source {
		known[p.ID] = p
	}
	next.Source = make([]*Peer, 0, len(list.List))
	for _, i := range list.List {
		if !i.Routable() {
			continue
		}
		p := known[i.ID]
		if p == nil || p.Instance != i {
			p = &Peer{Instance: i}
			delete(next.Down, i.ID)
		}
		next.Source = append(next.Source, p)
	}
	next.listed = true
	next.Stale = list.Stale
	return t.swap(next)
}

// report puts p down from now until its cooldown has passed, and returns that
// report. While p is down, further reports change nothing: many streams that
// break at once are one failure. Nor does a report of one that has since been
// started anew: the new one has not failed.
func (t *tiers) report(p *Peer, cause error, now time.Time) (d Down, isNew bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := *t.load()
	if d, down := next.Down[p.ID]; down {
		return d, false
	}
	if listed := next.byID(p.ID); listed != nil {
		if listed.Instance != p.Instance {
			return Down{}, false
		}
		p = listed // p may be from before it left and came back
	}
	p.failures++
	d = Down{Instance: p.Instance, Cause: cause, Since: now, Until: now.Add(t.cooldownAfter(p.failures)), peer: p}
	next.Down = maps.Clone(next.Down)
	if next.Down == nil {
		next.Down = make(map[discovery.InstanceID]Down, 1)
	}
	next.Down[p.ID] = d
	t.swap(next)
	return d, true
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

// setReported takes over what other clients have reported.
func (t *tiers) setReported(reports map[discovery.InstanceID]discovery.Report) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := *t.load()
	next.Reported = reports
	next.unasked = false
	t.swap(next)
}

// doNotWait lets requests go out although the reports of others are not known.
func (t *tiers) doNotWait() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if next := *t.load(); next.unasked {
		next.unasked = false
		t.swap(next)
	}
}

// restore puts every instance back whose deadline has come, and returns those
// that this router had taken out, and the next deadline (zero if there is none).
func (t *tiers) restore(now time.Time) (back []discovery.Instance, deadline time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := *t.load()
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
	down, reported := maps.Clone(next.Down), maps.Clone(next.Reported)
	maps.DeleteFunc(down, func(_ discovery.InstanceID, d Down) bool {
		if !over(d.Until) {
			return false
		}
		back = append(back, d.Instance)
		return true
	})
	// The store ends these too, but not while it can't be read.
	maps.DeleteFunc(reported, func(_ discovery.InstanceID, r discovery.Report) bool { return over(r.Until) })
	if len(down) < len(next.Down) || len(reported) < len(next.Reported) {
		next.Down, next.Reported = down, reported
		t.swap(next)
	}
	return back, deadline
}

// setStale marks the source as stale for the reason err.
func (t *tiers) setStale(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := *t.load()
	next.Stale = err
	t.swap(next)
}

// byID returns the instance of the source that has an id, or nil.
func (t *Tiers) byID(id discovery.InstanceID) *Peer {
	i := slices.IndexFunc(t.Source, func(p *Peer) bool { return p.ID == id })
	if i < 0 {
		return nil
	}
	return t.Source[i]
}

// find returns the one of peers that a person means: by its id, in whatever form
// a number in hex has, else by its name, or nil.
func find(peers []*Peer, nameOrID string) *Peer {
	n, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(nameOrID), "0x"), 16, 64)
	id := discovery.InstanceID(n)
	var named *Peer
	for _, p := range peers {
		switch {
		case err == nil && p.ID == id:
			return p
		case named == nil && p.Name == nameOrID:
			named = p
		}
	}
	return named
}
