package router

import (
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// heard is a report of another client that stands.
type heard struct {
	discovery.Report
	seen   time.Time // first, by this router
	until  time.Time // it is heeded so long, at most
	heeded bool      // its instance is half-open since
}

// bound is how long a router heeds another's report at most, from when that was
// made: no longer than one of its own could last.
func (t *tiers) bound() time.Duration { return max(t.cooldown, t.maxCooldown) }

// setHeard takes over the reports of others that stand, and returns those that
// are new. One that was known before stays what it was.
func (t *tiers) setHeard(reports []discovery.Report) (news []heard) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	all := make(map[discovery.InstanceID][]heard)
	for _, r := range reports {
		h := heard{Report: r, seen: now, until: r.Until}
		if limit := r.Since.Add(t.bound()); limit.Before(h.until) {
			h.until = limit
		}
		if !h.until.After(now) {
			continue
		}
		isNew := true
		for _, known := range t.heard[r.Instance] {
			if known.Reporter == r.Reporter && known.Incarnation == r.Incarnation && known.Until.Equal(r.Until) {
				h, isNew = known, false
			}
		}
		if isNew {
			news = append(news, h)
		}
		all[r.Instance] = append(all[r.Instance], h)
		t.due.Store(min(t.due.Load(), int64(h.until.Sub(t.began))))
	}
	t.heard = all
	t.next.unasked = false
	t.dirty.Store(true)
	t.changed(now)
	return news
}

// isOut heeds what others have reported of p, and reports whether it keeps p
// out. Otherwise p is half-open. The caller holds mu.
func (t *tiers) isOut(p *Peer, now time.Time) bool {
	reports := t.heard[p.ID]
	var standing []discovery.Report
	for i := range reports {
		h := &reports[i]
		if h.Incarnation != p.Incarnation || !h.until.After(now) {
			continue
		}
		if !h.heeded {
			h.heeded = true
			t.opens(p, now)
		}
		if h.seen.After(p.outweighs) { // else a request has shown since that it serves
			standing = append(standing, h.Report)
		}
	}
	return discovery.TakeOut(standing)
}

// longest returns, of the reports about each instance, the one that ends last.
func longest(all map[discovery.InstanceID][]heard) map[discovery.InstanceID]discovery.Report {
	if len(all) == 0 {
		return nil
	}
	reports := make(map[discovery.InstanceID]discovery.Report, len(all))
	for id, hs := range all {
		for _, h := range hs {
			if h.until.After(reports[id].Until) {
				h.Until = h.until
				reports[id] = h.Report
			}
		}
	}
	return reports
}
