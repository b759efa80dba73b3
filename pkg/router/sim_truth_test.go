package router

import (
	"fmt"
	"slices"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// shows notes what the router is about to see.
func (s *sim) shows(list []discovery.Instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown = nil
	if s.firstShown.IsZero() {
		s.firstShown = time.Now()
	}
	for _, i := range list {
		if i.Transport != discovery.NDJSON {
			s.seen["of another transport"]++
			continue
		}
		s.shown = append(s.shown, i)
		if s.records[i.ID] != i {
			s.records[i.ID] = i // new, or started anew
			delete(s.failures, i.ID)
		}
		if s.down[i.ID].Instance != i {
			delete(s.down, i.ID) // a report of the one before
		}
	}
	for _, q := range s.requests {
		q.listed = q.listed || !q.began.IsZero() && q.isListed()
	}
}

// hasShown reports whether the router has seen a set of instances.
func (s *sim) hasShown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.firstShown.IsZero()
}

// isDown reports whether an instance is down by a report of its own. In the
// nanosecond of the report and of its end both is true. The caller holds mu.
func (s *sim) isDown(id discovery.InstanceID) bool {
	d, ok := s.down[id]
	return ok && time.Now().After(d.Since) && time.Now().Before(d.Until)
}

// blame notes that an instance has failed. The caller holds mu.
func (s *sim) blame(i discovery.Instance, kind stream.Kind) {
	now := time.Now()
	if d, ok := s.down[i.ID]; ok && now.Before(d.Until) {
		return
	}
	for _, other := range s.shown {
		if other.ID == i.ID && other != i {
			s.seen["blame of one that was replaced"]++
			return
		}
	}
	s.failures[i.ID]++
	cooldown := s.cfg.Cooldown
	for n := 1; n < s.failures[i.ID] && cooldown < s.cfg.MaxCooldown; n++ {
		cooldown = min(2*cooldown, s.cfg.MaxCooldown)
		s.seen["double cooldown"]++
	}
	s.down[i.ID] = Down{Instance: i, Since: now, Until: now.Add(cooldown)}
	s.note("%s is down for %v: %s", label(i), cooldown, kind)
}

// checkTiers holds the router's tiers against the truth, while nothing moves.
// Nobody waits then who has somewhere to go.
func (s *sim) checkTiers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var avail []discovery.Instance
	for _, i := range s.shown {
		if d, ok := s.down[i.ID]; !ok || !time.Now().Before(d.Until) {
			avail = append(avail, i)
		}
	}
	t := s.r.Tiers()
	if got := instancesOf(t.Source); !slices.Equal(got, s.shown) {
		s.violate("source is %v, want %v", got, s.shown)
	}
	if got := instancesOf(t.Avail); !slices.Equal(got, avail) {
		s.violate("available are %v, want %v", got, avail)
	}
	for _, q := range s.requests {
		if q.waiting && q.listed && q.hasCandidate() && q.ctx.Err() == nil {
			s.violate("%s waits, but there is an instance", q.id)
		}
	}
}

func instancesOf(peers []*Peer) []discovery.Instance {
	var list []discovery.Instance
	for _, p := range peers {
		list = append(list, p.Instance)
	}
	return list
}

// note adds a line to the transcript. The caller holds mu.
func (s *sim) note(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf("%12.9f ", time.Since(s.begin).Seconds())+fmt.Sprintf(format, args...))
}

func (s *sim) fail(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.violate(format, args...)
}

// violate notes what should not be. The first decides. The caller holds mu.
func (s *sim) violate(format string, args ...any) {
	s.note("VIOLATION: "+format, args...)
	if s.violation == "" {
		s.violation = fmt.Sprintf("after %v: ", time.Since(s.begin)) + fmt.Sprintf(format, args...)
	}
}
