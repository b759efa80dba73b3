package storetest

import "github.com/request-migration/migrate/pkg/discovery"

// outageIsStale is for backends that can be made unreadable.
func outageIsStale(s *suite) {
	if s.Break == nil || s.Heal == nil {
		s.Skip("the backend has no outages")
	}
	store := s.open()
	owner := s.join(store)
	s.put(owner, ep+"a", "1")
	f := s.followFor(store, ep, s.LeaseTime+6*s.Patience)
	f.until(want{ep + "a": "1"})
	s.Break(s, store)
	f.untilThat("a stale set", func(snap discovery.Snapshot) bool {
		if !(want{ep + "a": "1"}).matches(snap) {
			s.Fatalf("during an outage a set is not the last known one: %s", describe(snap))
		}
		return snap.Stale != nil
	})
	s.Heal(s, store)
	f.untilThat("a current set", func(snap discovery.Snapshot) bool {
		return snap.Stale == nil && (want{ep + "a": "1"}).matches(snap)
	})
	s.put(owner, ep+"b", "2")
	f.untilThat("what was put after an outage", (want{ep + "a": "1", ep + "b": "2"}).matches)
}
