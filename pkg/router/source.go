package router

import (
	"cmp"
	"context"
	"iter"
	"log/slog"
	"slices"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/internal/signal"
)

// Source is where a router learns which instances there are. It must be safe for
// concurrent use.
type Source interface {
	// Watch yields the instances of e: each pair is the complete set, the first
	// comes at once, even if empty. While the set can't be read, the last one is
	// yielded with [discovery.Instances.Stale] saying why. A watch that ends,
	// with an error or without, is taken up again after a second; it ends with
	// ctx at the latest.
	Watch(ctx context.Context, e discovery.Endpoint) iter.Seq2[discovery.Instances, error]
}

const (
	// sourceRetry is the pause before a source that could not be read at all
	// is tried again.
	sourceRetry = time.Second
	// lossWindow is the time within which discovery must lose most of its
	// instances for that to look like discovery's own trouble: 10 s, as servers
	// that can't renew their leases all lose them within one lease time.
	lossWindow = 10 * time.Second
	// keepLost is how long lost instances are kept: ten minutes is enough to
	// restart a store, and after that a person should look.
	keepLost = 10 * time.Minute
	// fewInstances is how many instances are so few that the loss of most of them
	// says little about discovery: then only the loss of all counts.
	fewInstances = 3
)

// watch follows the source, and watches again when a watch has ended.
func (r *Router) watch() {
	for r.ctx.Err() == nil {
		for list, err := range r.cfg.Source.Watch(r.ctx, r.cfg.Endpoint) {
			if r.ctx.Err() != nil {
				return
			}
			r.follow(list, err)
		}
		select {
		case <-time.After(sourceRetry):
		case <-r.ctx.Done():
		}
	}
}

// follow takes over what the source has yielded.
func (r *Router) follow(list discovery.Instances, err error) {
	level := slog.LevelWarn
	if r.tiers.load().Stale != nil {
		level = slog.LevelDebug // the warning has been logged
	}
	if err != nil {
		r.log.Log(r.ctx, level, "discovery ended, trying again", "endpoint", r.cfg.Endpoint, "err", err)
		r.tiers.setStale(err)
		return
	}
	t, lost := r.tiers.setSource(list)
	if lost > 0 {
		r.log.Warn("discovery has lost most instances at once: they are kept as a last resort", "endpoint", r.cfg.Endpoint,
			"lost", lost, "source", len(t.Source), "for", keepLost)
	}
	if t.Stale != nil {
		r.log.Log(r.ctx, level, "instance_source is stale", "endpoint", r.cfg.Endpoint, "err", t.Stale)
	}
	r.log.Debug("instance_source", "endpoint", r.cfg.Endpoint, "source", len(t.Source), "avail", len(t.Avail))
}

// setSource takes over what discovery lists, and returns how many more instances
// are lost now. What is known of an instance stays when others join, leave or come
// back. A server that was started anew under the same id is another instance.
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
	var unroutable []discovery.Instance
	for _, i := range list {
		if !t.routable(i) {
			unroutable = append(unroutable, i)
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
	t.next.Source, t.next.Unroutable, t.next.listed, t.next.Stale = source, unroutable, true, set.Stale
	t.next.allIndex, t.next.mixed = resumes(source)
	lost = t.sortAway(now)
	t.rebuild(now)
	signal.Send(t.kick)
	return t.load(), lost
}

// joins returns the peer for i. p is the one that was listed under its id, or nil.
// The caller holds mu.
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
	case *p.Instance == i:
		return p
	case p.Same(i):
		return p.withRecord(i)
	}
	delete(t.timed, p.state)
	p.remember().replaced = true
	return newPeer(i)
}

// setStale marks the source as stale for the reason err.
func (t *tiers) setStale(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next.Stale = err
	t.rebuild(time.Now())
}

// away is an instance that is no longer listed.
type away struct {
	peer *Peer
	left time.Time
	// lost says that discovery lost it together with most others. It is kept as
	// a last resort until the time in until.
	lost  bool
	until time.Time
}

// leaves notes that p is no longer listed. The caller holds mu.
func (t *tiers) leaves(p *Peer, now time.Time) { t.away[p.ID] = away{peer: p, left: now} }

// isCurrent reports whether p is still the instance with its id. If not, what a
// stream has seen there does not concern later requests. The caller holds mu.
func (t *tiers) isCurrent(p *Peer, now time.Time) bool {
	if listed := t.next.byID(p.ID); listed != nil {
		return listed.state == p.state
	}
	if a, ok := t.away[p.ID]; ok {
		return a.peer.state == p.state
	}
	if p.recall().replaced {
		return false
	}
	t.away[p.ID] = away{peer: p, left: now.Add(-lossWindow)} // it had been forgotten
	return true
}

// sortAway decides which instances that are no longer listed are lost, and returns
// how many more there are now. It forgets the others as soon as nothing is known of
// them that could still matter. The caller holds mu.
func (t *tiers) sortAway(now time.Time) (more int) {
	recent := 0
	for _, a := range t.away {
		if now.Sub(a.left) < lossWindow {
			recent++
		}
	}
	listed := len(t.next.Source)
	mostAre := recent > listed
	if recent+listed <= fewInstances {
		mostAre = listed == 0
	}
	for id, a := range t.away {
		isRecent := now.Sub(a.left) < lossWindow
		switch {
		case a.lost:
		case mostAre && isRecent && !t.isLeaving(a.peer):
			more++
			a.lost, a.until = true, now.Add(keepLost)
			t.away[id] = a
			t.due.Store(min(t.due.Load(), int64(a.until.Sub(t.began))))
		case isRecent:
		case a.peer.streams.Load() > 0, now.Sub(a.left) < keepLost && t.isKnown(a.peer):
		default:
			delete(t.away, id)
		}
	}
	return more
}

// isKnown reports whether the router knows anything of p that would matter if p came
// back. The caller holds mu.
func (t *tiers) isKnown(p *Peer) bool {
	return p.past != nil && p.past.failures > 0 || !p.isUnmarked() || len(t.heard[p.ID]) > 0
}

// isLeaving reports whether p has said on any connection that it drains.
func (t *tiers) isLeaving(p *Peer) bool {
	return p.is(isDraining) || t.saidDraining != nil && t.saidDraining(*p.Instance)
}

// dropLost gives up an instance that is not listed and has failed, and reports
// whether it was kept as lost.
func (t *tiers) dropLost(p *Peer) (wasLost bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, ok := t.away[p.ID]
	if !ok || a.peer.state != p.state {
		return false
	}
	wasLost = a.lost
	now := time.Now()
	a.lost, a.left = false, now.Add(-lossWindow) // so that it is not found lost again
	t.away[p.ID] = a
	if wasLost {
		t.changed(now)
	}
	return wasLost
}
