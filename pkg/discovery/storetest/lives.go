package storetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

func ttlEnds(s *suite) {
	store := s.open()
	s.put(store, ep+"kept", "1")
	s.follow(store, ep).until(want{ep + "kept": "1"})
	began := time.Now()
	lease := s.putFor(store, ep+"brief", "2", s.TTL)
	f := s.followFor(store, ep, s.TTL+s.Patience)
	f.until(want{ep + "kept": "1", ep + "brief": "2"})
	f.until(want{ep + "kept": "1"})
	// A tenth less, because the backend's clock may be that coarse.
	if took := time.Since(began); took < s.TTL*9/10 {
		s.Errorf("a record with a ttl of %v was gone after %v", s.TTL, took)
	}
	s.stands(store, ep, want{ep + "kept": "1"})
	s.release(lease) // does nothing
}

// expiryIsTold is for the stores that are a [discovery.Expirer]; none has to be.
func expiryIsTold(s *suite) {
	store := s.open()
	expirer, ok := store.(discovery.Expirer)
	if !ok {
		s.Skip("the store does not tell how long a record stands")
	}
	const ttl = 20 * time.Second // far above a backend's lease time
	s.putFor(store, ep+"brief", "1", ttl)
	expiry, err := expirer.Expiry(s.soon(), ep+"brief")
	if err != nil || expiry < ttl-s.Patience || expiry > ttl+time.Second {
		s.Errorf("Expiry of a record just put for %v: %v, %v", ttl, expiry, err)
	}
	if expiry, err := expirer.Expiry(s.soon(), ep+"other"); err != nil || expiry != 0 {
		s.Errorf("Expiry of no record: %v, %v", expiry, err)
	}
	lease := s.put(store, ep+"kept", "2")
	if expiry, err := expirer.Expiry(s.soon(), ep+"kept"); err != nil || expiry < 0 || expiry > s.LeaseTime+time.Second {
		s.Errorf("Expiry of a record that is kept alive: %v, %v, want %v at most, or 0 if it never expires", expiry, err, s.LeaseTime)
	}
	s.release(lease)
	if expiry, err := expirer.Expiry(s.soon(), ep+"kept"); err != nil || expiry != 0 {
		s.Errorf("Expiry of a record that was released: %v, %v", expiry, err)
	}
}

func putChangesLifetime(s *suite) {
	store := s.open()
	s.put(store, ep+"a", "kept")
	s.putFor(store, ep+"b", "brief", s.TTL)
	s.putFor(store, ep+"a", "brief", s.TTL)
	s.put(store, ep+"b", "kept")
	f := s.followFor(store, ep, s.TTL+s.Patience)
	f.until(want{ep + "b": "kept"})
	// By the end b has outlived its first ttl.
	s.remains(store, s.TTL, want{ep + "b": "kept"})
}

func keptOutlives(s *suite) {
	store := s.open()
	s.put(store, ep+"a", "1")
	s.remains(store, s.LeaseTime*3/2, want{ep + "a": "1"})
}

// idleWatch: while nobody writes, a watch has nothing to say, and above all does not
// take the silence for an outage.
func idleWatch(s *suite) {
	store := s.open()
	s.put(store, ep+"a", "1")
	f := s.followFor(store, ep, 2*s.LeaseTime)
	f.until(want{ep + "a": "1"})
	snap, err := f.next()
	if err == nil {
		s.Fatalf("a watch of what does not change yielded %s", describe(snap))
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		s.Fatalf("the watch ended: %v", err)
	}
}

// remains checks that the set is exactly w for as long as d.
func (s *suite) remains(store discovery.Store, d time.Duration, w want) {
	s.Helper()
	f := s.followFor(store, ep, d)
	for {
		snap, err := f.next()
		if errors.Is(err, context.DeadlineExceeded) {
			return
		}
		if err != nil {
			s.Fatalf("the watch ended: %v", err)
		}
		if !w.matches(snap) {
			s.Fatalf("within %v the set became %s, want %v", d, describe(snap), w)
		}
	}
}

func killedOwner(s *suite) {
	store := s.open()
	if s.Kill == nil {
		s.Skip("the backend can't kill an owner")
	}
	owner := s.join(store)
	s.put(owner, ep+"a", "1")
	s.put(store, ep+"b", "2")
	f := s.followFor(store, ep, s.LeaseTime+s.Patience)
	f.until(want{ep + "a": "1", ep + "b": "2"})
	s.Kill(s, owner)
	began := time.Now()
	f.until(want{ep + "b": "2"})
	// A quarter more, because a watch may notice it a little later.
	if took := time.Since(began); took > s.LeaseTime*5/4 {
		s.Errorf("the record of a killed owner was gone after %v, want %v at the most", took, s.LeaseTime)
	}
	s.stands(store, ep, want{ep + "b": "2"})
}

// record returns a value with an incarnation, by which its owner recognises it.
func record(incarnation, name string) string {
	return fmt.Sprintf(`{"incarnation":%q,"name":%q}`, incarnation, name)
}

// replacedReturns checks that of two owners of a key the newest stands, and that the
// other puts its record again, and keeps it, once the newest has gone.
func replacedReturns(s *suite) {
	store := s.open()
	other := s.join(store)
	first, second := record("1", "first"), record("2", "second")
	s.put(store, ep+"a", first)
	later := s.put(other, ep+"a", second)
	s.remains(store, s.LeaseTime*3/2, want{ep + "a": second}) // the first does not fight for it
	s.release(later)
	s.followFor(store, ep, s.LeaseTime+s.Patience).until(want{ep + "a": first})
	s.remains(store, s.LeaseTime*3/2, want{ep + "a": first})
}

func replacedReturnsAfterCrash(s *suite) {
	store := s.open()
	if s.Kill == nil {
		s.Skip("the backend can't kill an owner")
	}
	other := s.join(store)
	first, second := record("1", "first"), record("2", "second")
	s.put(store, ep+"a", first)
	s.put(other, ep+"a", second)
	s.stands(store, ep, want{ep + "a": second})
	s.Kill(s, other)
	s.followFor(store, ep, 2*s.LeaseTime+s.Patience).until(want{ep + "a": first})
	s.remains(store, s.LeaseTime*3/2, want{ep + "a": first})
}

// replacedThenReleased checks that an owner who has released a record while another
// had the key does not put it again.
func replacedThenReleased(s *suite) {
	store := s.open()
	other := s.join(store)
	earlier := s.put(store, ep+"a", record("1", "first"))
	later := s.put(other, ep+"a", record("2", "second"))
	s.release(earlier)
	s.release(later)
	s.followFor(store, ep, s.Patience).until(want{})
	s.remains(store, s.LeaseTime*3/2, want{})
}

// copyIsTakenOver checks that an owner keeps alive, and releases, a copy of its record
// that somebody else has written.
func copyIsTakenOver(s *suite) {
	store := s.open()
	if s.Overwrite == nil {
		s.Skip("the backend can't be written past its stores")
	}
	owner := s.join(store)
	value := record("1", "first")
	lease := s.put(owner, ep+"a", value)
	s.Overwrite(s, owner, ep+"a", []byte(value))
	s.remains(store, s.LeaseTime*3/2, want{ep + "a": value})
	s.release(lease)
	s.followFor(store, ep, s.Patience).until(want{})

	if s.Kill == nil {
		return
	}
	s.put(owner, ep+"a", value)
	s.Overwrite(s, owner, ep+"a", []byte(value))
	s.remains(store, s.LeaseTime*3/2, want{ep + "a": value})
	s.Kill(s, owner)
	s.followFor(store, ep, s.LeaseTime*5/4+s.Patience).until(want{})
}

// damageIsMended checks that an owner restores its record after it was cut or edited.
func damageIsMended(s *suite) {
	store := s.open()
	if s.Overwrite == nil {
		s.Skip("the backend can't be written past its stores")
	}
	value := record("1", "first")
	s.put(store, ep+"a", value)
	for _, found := range []string{value[:len(value)/2], record("1", "other")} {
		s.Overwrite(s, store, ep+"a", []byte(found))
		s.followFor(store, ep, s.LeaseTime+s.Patience).until(want{ep + "a": value})
	}
	s.remains(store, s.LeaseTime*3/2, want{ep + "a": value})
}

// putHeedsContext checks that Put and Release end with their contexts.
func putHeedsContext(s *suite) {
	store := s.open()
	ctx, cancel := context.WithCancel(s.soon())
	lease := s.put(store, ep+"a", "1")
	cancel()
	if _, err := store.Put(ctx, ep+"b", []byte("2"), 0); !errors.Is(err, context.Canceled) {
		s.Errorf("Put with a context that has ended: %v, want %v", err, context.Canceled)
	}
	s.remains(store, s.LeaseTime*3/2, want{ep + "a": "1"})
	_ = lease.Release(ctx) // it may fail, but must return
}
