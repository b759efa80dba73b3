package router

import (
	"fmt"
	"slices"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// simKnown is the truth about an instance: what the router should know of it.
type simKnown struct {
	down      Down // its last own report; ended if Until has passed
	isDown    bool
	failures  int
	half      bool
	halfSince time.Time
	outweighs time.Time // reports that stood then are refuted
	trial     *visit    // who tries it
	backoff   time.Time // until when
	owing     int       // requests without an answer
	life      time.Time // when it last answered, or owed nothing
	draining  bool      // a request was told that it leaves
	failed    bool      // since it was last listed
	left      time.Time // when it was last listed no more
}

// know returns what is known of i, as it is now. The caller holds mu.
func (s *sim) know(i discovery.Instance) *simKnown {
	id := identity{i.ID, i.Incarnation}
	k := s.known[id]
	if k == nil {
		k = &simKnown{}
		s.known[id] = k
	}
	if k.isDown && !time.Now().Before(k.down.Until) {
		k.isDown, k.half, k.halfSince = false, true, k.down.Until
	}
	return k
}

// shows notes what the router is about to see.
func (s *sim) shows(list []discovery.Instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.shown {
		s.know(i).left = time.Now()
	}
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
		s.latest[i.ID] = identity{i.ID, i.Incarnation}
		s.everShown[i.Address] = i
		k := s.know(i)
		k.failed, k.left = false, time.Time{}
	}
	s.heed()
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

// isReplaced reports whether another server has i's id now. The caller holds mu.
func (s *sim) isReplaced(i discovery.Instance) bool {
	return s.latest[i.ID] != identity{i.ID, i.Incarnation}
}

// putDown notes that an instance has failed. The caller holds mu.
func (s *sim) putDown(i discovery.Instance, kind stream.Kind) {
	k := s.know(i)
	if k.isDown {
		return
	}
	if s.isReplaced(i) {
		s.seen["report of one that was replaced"]++
		return
	}
	k.failures++
	cooldown := s.cfg.Cooldown
	for n := 1; n < k.failures && cooldown < s.cfg.MaxCooldown; n++ {
		cooldown = min(2*cooldown, s.cfg.MaxCooldown)
		s.seen["double cooldown"]++
	}
	now := time.Now()
	k.down, k.isDown = Down{Instance: i, Since: now, Until: now.Add(cooldown)}, true
	k.half, k.trial = false, nil
	s.note("%s is down for %v: %s", label(i), cooldown, kind)
}

// serves notes that an instance has answered a request sent at began. The caller
// holds mu.
func (s *sim) serves(i discovery.Instance, began time.Time) {
	k := s.know(i)
	if k.half && !k.halfSince.After(began) {
		k.half, k.trial, k.outweighs = false, nil, began
		s.seen["trial decided"]++
	}
}

// isOut reports whether the reports of others keep i out. The caller holds mu.
func (s *sim) isOut(i discovery.Instance) bool {
	var standing []discovery.Report
	outweighs := s.know(i).outweighs
	for _, h := range s.heard {
		if h.Instance == i.ID && h.Incarnation == i.Incarnation && h.Until.After(time.Now()) && h.seen.After(outweighs) {
			standing = append(standing, h.Report)
		}
	}
	_, out := discovery.Standing(i, standing, time.Now())
	return out
}

// The ranks of an instance for a request: the order of choice.
const (
	rankNone   = iota // it is not to be asked
	rankReady         // nothing speaks against it
	rankPassed        // it backs off, is on trial, or owes a start
	rankOut           // only others have reported it
	rankLost          // discovery has lost it with most others
	rankAgain         // it broke the request, which waits
)

// rank returns the rank of i for q. The caller holds mu.
func (q *simRequest) rank(i discovery.Instance) int {
	s, now := q.s, time.Now()
	k := s.know(i)
	isListed := slices.Contains(s.shown, i)
	backsOff := now.Before(k.backoff)
	way, v := q.way(i), q.visited(i)
	if v != nil && v.kind == stream.Unresumable && v.way != WayReplay && way == WayReplay {
		v = nil // it may begin anew
	}
	switch {
	case k.isDown || way == "" || q.isRefusedEnough():
		return rankNone
	case v != nil:
		if s.cfg.WaitRestore > 0 && !q.refusal(v) && !v.diverged && isListed && !now.Before(v.again) {
			return rankAgain
		}
		return rankNone
	case q.askedBackingOff && backsOff:
		return rankNone
	case !isListed:
		if s.isReplaced(i) || k.failed || k.draining || k.left.IsZero() {
			return rankNone
		}
		return rankLost
	case s.isOut(i):
		return rankOut
	case backsOff || k.half && k.trial != nil || k.owing > 0 && now.Sub(k.life) >= owingLimit:
		return rankPassed
	}
	return rankReady
}

// checkTiers compares the router's tiers with the truth while nothing moves, and checks
// that no request waits that has an instance to go to.
func (s *sim) checkTiers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var avail, spare []discovery.Instance
	for _, i := range s.shown {
		switch {
		case s.know(i).isDown:
		case s.isOut(i):
			spare = append(spare, i)
		default:
			avail = append(avail, i)
		}
	}
	t := s.r.Tiers()
	for what, lists := range map[string][2][]discovery.Instance{
		"source":    {instancesOf(t.Source), s.shown},
		"available": {instancesOf(t.Avail), avail},
		"spare":     {instancesOf(t.Spare), spare},
	} {
		if !slices.Equal(lists[0], lists[1]) {
			s.violate("%s are %v, want %v", what, lists[0], lists[1])
		}
	}
	for _, p := range t.Source {
		if k := s.know(*p.Instance); p.HalfOpen() != k.half && !k.isDown {
			s.violate("%s is half-open: %v, want %v", label(*p.Instance), p.HalfOpen(), k.half)
		}
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
		list = append(list, *p.Instance)
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
