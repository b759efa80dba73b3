package router

import (
	"time"
)

const (
	// lossWindow is the time within which discovery must lose most of its
	// instances for that to look like its own trouble: servers that can't
	// renew their leases lose them within one renewal of each other.
	lossWindow = 10 * time.Second
	// keepLost is how long instances that were lost so are kept. Whoever serves
	// again without a store by then is better found by a person.
	keepLost = 10 * time.Minute
	// fewInstances is how many are so few that any one of them is much: then
	// only the loss of all counts.
	fewInstances = 3
)

// away is an instance that has left the source.
type away struct {
	peer *Peer
	left time.Time
	// lost says that discovery lost it with most others: it is kept as a last
	// resort, until then.
	lost  bool
	until time.Time
}

// leaves notes that p is no longer listed. The caller holds mu.
func (t *tiers) leaves(p *Peer, now time.Time) { t.away[p.ID] = away{peer: p, left: now} }

// isCurrent reports whether p is still the instance with its id, so that what a
// stream has seen there concerns the next request. The caller holds mu.
func (t *tiers) isCurrent(p *Peer, now time.Time) bool {
	if listed := t.next.byID(p.ID); listed != nil {
		return listed.state == p.state
	}
	if a, ok := t.away[p.ID]; ok {
		return a.peer.state == p.state
	}
	t.away[p.ID] = away{peer: p, left: now.Add(-lossWindow)} // it had been forgotten
	return true
}

// sortAway decides who of those that have left is to be kept as lost, returns
// how many more these are, and forgets the others when nothing is known of them
// that could still matter. The caller holds mu.
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

// isKnown reports whether p, if it came back, would not be like a new one. The
// caller holds mu.
func (t *tiers) isKnown(p *Peer) bool {
	return p.failures > 0 || !p.isUnmarked() || len(t.heard[p.ID]) > 0
}

// isLeaving reports whether p has said on any connection that it drains.
func (t *tiers) isLeaving(p *Peer) bool {
	return p.draining.Load() || t.saidDraining != nil && t.saidDraining(p.Address)
}

// dropLost gives up an instance that is not listed and has failed, and reports
// whether it was a lost one.
func (t *tiers) dropLost(p *Peer) (wasLost bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, ok := t.away[p.ID]
	if !ok || a.peer.state != p.state {
		return false
	}
	wasLost = a.lost
	now := time.Now()
	a.lost, a.left = false, now.Add(-lossWindow) // nor is it to be found lost yet
	t.away[p.ID] = a
	if wasLost {
		t.changed(now)
	}
	return wasLost
}
