package storetest

import (
	"context"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// brief bounds calls that can't succeed.
const brief = time.Second

// breaks cuts the backend off from store until heal is called, at the end of the test at
// the latest, or skips the test.
func (s *suite) breaks(store discovery.Store) (heal func()) {
	s.Helper()
	if s.Break == nil {
		s.Skip("the backend has no outages")
	}
	heal = sync.OnceFunc(func() { s.Heal(s, store) })
	s.Cleanup(heal)
	s.Break(s, store)
	return heal
}

// current reports whether snap is exactly the set w, and not stale.
func (w want) current(snap discovery.Snapshot) bool { return snap.Stale == nil && w.matches(snap) }

// outageMakesStale checks that a watch outlives an outage with the last known set, which
// it calls stale, and that nothing else pretends that all is well.
func outageMakesStale(s *suite) {
	store := s.open()
	w := want{ep + "a": "1"}
	s.put(store, ep+"a", "1")
	f := s.followFor(store, ep, 3*s.Patience+s.LeaseTime)
	f.untilThat("a current set", w.current)
	heal := s.breaks(store)
	f.untilThat("a stale set", func(snap discovery.Snapshot) bool {
		if !w.matches(snap) {
			s.Fatalf("in an outage the set became %s, want the last known one, %v", describe(snap), w)
		}
		return snap.Stale != nil
	})

	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), brief)
	defer cancel()
	if _, err := store.Put(ctx, ep2+"b", []byte("2"), s.TTL); err == nil {
		s.Error("Put succeeded in an outage, when no reader could see the record")
	}
	ctx, cancel = context.WithTimeout(context.WithoutCancel(s.ctx), brief)
	defer cancel()
	for snap, err := range store.Watch(ctx, ep) {
		if err == nil && snap.Stale == nil {
			s.Errorf("a new watch calls %s current in an outage", describe(snap))
		}
		break
	}

	heal()
	f.untilThat("a current set after the outage", w.current)
	s.put(store, ep+"c", "3")
	w[ep+"c"] = "3"
	f.untilThat("a change after the outage", w.current)
}

// keptOutlivesOutage checks that a record stands again after an outage in which it has
// expired, or would have.
func keptOutlivesOutage(s *suite) {
	store := s.open()
	w := want{ep + "a": "1"}
	s.put(store, ep+"a", "1")
	f := s.followFor(store, ep, 3*(s.Patience+s.LeaseTime))
	f.untilThat("a current set", w.current)
	heal := s.breaks(store)
	f.untilThat("a stale set", func(snap discovery.Snapshot) bool { return snap.Stale != nil })
	timer := time.NewTimer(s.LeaseTime * 3 / 2)
	defer timer.Stop()
	<-timer.C
	heal()
	f.untilThat("the record again", w.current)
	s.remains(store, s.LeaseTime*3/2, w)
}
