package storetest

import (
	"context"
	"errors"
	"fmt"
)

// record is a value with an incarnation, by which its owner knows it again.
func record(incarnation, name string) string {
	return fmt.Sprintf(`{"incarnation":%q,"name":%q}`, incarnation, name)
}

// replacedReturns: of two owners of a key the newest stands, and when it goes
// the one before it puts its record again and keeps it.
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

// replacedThenReleased: who has released a record while it was another's does
// not put it again.
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

// copyIsTakenOver: a record that somebody wrote again as it was is its owner's,
// who keeps it alive and takes it along.
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

// damageIsMended: a record that was cut or edited becomes again what its owner
// has put.
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

// putHeedsContext: a call whose context has ended does not go on without it.
func putHeedsContext(s *suite) {
	store := s.open()
	ctx, cancel := context.WithCancel(s.soon())
	lease := s.put(store, ep+"a", "1")
	cancel()
	if _, err := store.Put(ctx, ep+"b", []byte("2"), 0); !errors.Is(err, context.Canceled) {
		s.Errorf("Put with a context that has ended: %v, want %v", err, context.Canceled)
	}
	s.remains(store, s.LeaseTime*3/2, want{ep + "a": "1"})
	_ = lease.Release(ctx) // it may have been too late, but returns
}
