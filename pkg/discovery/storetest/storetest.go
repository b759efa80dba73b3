// Package storetest tests that an implementation of [discovery.Store] keeps its
// contract. Like testing/fstest, it takes one call in a test of the store:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, storetest.Backend{
//			Open:      func(tb testing.TB) discovery.Store { return new(discovery.Mem) },
//			LeaseTime: time.Millisecond, // its records don't outlive their owner
//		})
//	}
package storetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// A Backend makes the stores that the suite tests. Only Open is required. The suite
// calls the functions from the test's goroutine, one at a time; they fail the test
// through tb.
type Backend struct {
	// Open returns a handle on an empty backend, a new one or one that it empties:
	// tests do not overlap. The suite closes the handle. Open registers any other
	// cleanup with tb.Cleanup.
	Open func(tb testing.TB) discovery.Store

	// Join returns one more handle on the backend of s, as independent of s as a
	// handle in another process. With nil the suite skips the tests that need two
	// handles.
	Join func(tb testing.TB, s discovery.Store) discovery.Store

	// Kill ends the owner behind s as a crash of its process would: it releases
	// nothing and renews nothing any more. The suite only closes s afterwards. With
	// nil the suite skips the tests of crashes, which need Join too.
	Kill func(tb testing.TB, s discovery.Store)

	// Overwrite replaces the value under key without the store, as a person would
	// with etcdctl or an editor. The record has no lease then. s is a handle on the
	// backend. With nil the suite skips the tests of it.
	Overwrite func(tb testing.TB, s discovery.Store, key string, value []byte)

	// Break cuts the backend off from s, as an outage would: s can neither read nor
	// write until Heal. Other handles may be cut off too. Records that are kept alive
	// may expire meanwhile, and the backend may lose them. s must notice within
	// Patience. With nil the suite skips the tests of outages.
	Break func(tb testing.TB, s discovery.Store)

	// Heal ends what Break has begun. It is required with Break, and always called
	// before s is closed.
	Heal func(tb testing.TB, s discovery.Store)

	// LeaseTime is the longest time until the backend drops the records of a killed
	// owner. The default is 10 s. The suite waits for it, so a short one makes the
	// suite faster.
	LeaseTime time.Duration

	// TTL is the shortest ttl that the backend does not round up. The default is 1 s.
	// A short one makes the suite faster.
	TTL time.Duration

	// MaxValue is the size in bytes of the largest value that the backend takes. The
	// default is [discovery.MaxValue].
	MaxValue int

	// Patience is how long the suite waits for something that must happen at once, such
	// as the return of Close, before it fails. The default is 10 s. Only failing tests
	// take that long.
	Patience time.Duration
}

func (b Backend) withDefaults() Backend {
	if b.LeaseTime == 0 {
		b.LeaseTime = 10 * time.Second
	}
	if b.TTL == 0 {
		b.TTL = time.Second
	}
	if b.MaxValue == 0 {
		b.MaxValue = discovery.MaxValue
	}
	if b.Patience == 0 {
		b.Patience = 10 * time.Second
	}
	return b
}

// Run tests the stores of b, each part of the contract in a subtest. It counts
// goroutines, so no other test may run in parallel. Run it under the race detector
// too.
func Run(t *testing.T, b Backend) {
	t.Helper()
	for _, check := range checks() {
		t.Run(check.name, func(t *testing.T) { check.run(newSuite(t, b)) })
	}
}

// A check is one part of the contract.
type check struct {
	name string
	run  func(*suite)
}

func checks() []check {
	return []check{
		{"FirstSetAtOnce", firstSetAtOnce},
		{"PutShows", putShows},
		{"PutReplaces", putReplaces},
		{"PutCopiesValue", putCopiesValue},
		{"ReleaseRemoves", releaseRemoves},
		{"EarlierLeaseReleasesNothing", earlierLease},
		{"EarlierLeaseOfAnotherStore", earlierLeaseOfAnother},
		{"EveryByteOfValue", everyByte},
		{"OddKeys", oddKeys},
		{"BadRecordsRefused", badRecords},
		{"PrefixEndsAtSlash", prefixEndsAtSlash},
		{"SlowReaderGetsLatest", slowReader},
		{"WatchesAreIndependent", independentWatches},
		{"SetsDoNotChange", setsDoNotChange},
		{"WatchEndsWithContext", watchEndsWithContext},
		{"WatchEndsWithBreak", watchEndsWithBreak},
		{"BadPrefixesRefused", badPrefixes},
		{"TTLEnds", ttlEnds},
		{"ExpiryIsTold", expiryIsTold},
		{"PutChangesLifetime", putChangesLifetime},
		{"KeptOutlivesLeaseTime", keptOutlives},
		{"IdleWatchIsSilent", idleWatch},
		{"KilledOwnersRecordsGo", killedOwner},
		{"ReplacedOwnerReturns", replacedReturns},
		{"ReplacedOwnerReturnsAfterCrash", replacedReturnsAfterCrash},
		{"ReplacedThenReleased", replacedThenReleased},
		{"CopyIsTakenOver", copyIsTakenOver},
		{"DamageIsMended", damageIsMended},
		{"PutHeedsContext", putHeedsContext},
		{"OutageMakesStale", outageMakesStale},
		{"KeptOutlivesOutage", keptOutlivesOutage},
		{"CloseReleases", closeReleases},
		{"CloseLeavesTTL", closeLeavesTTL},
		{"CloseEndsWatches", closeEndsWatches},
		{"CloseWaitsForNoReader", closeWaitsForNoReader},
		{"ClosedRefuses", closedRefuses},
		{"CloseLeavesNoGoroutine", closeLeavesNoGoroutine},
		{"ConcurrentUse", concurrentUse},
	}
}

// A suite is one check's test and backend.
type suite struct {
	testing.TB
	Backend
	ctx context.Context // of the whole check
}

func newSuite(tb testing.TB, b Backend) *suite {
	tb.Helper()
	return &suite{TB: tb, Backend: b.withDefaults(), ctx: tb.Context()}
}

// open returns a handle on an empty backend, and closes it at the end of the test.
func (s *suite) open() discovery.Store {
	s.Helper()
	return s.closing(s.Open(s))
}

// join returns another handle on the backend of store, or skips the test.
func (s *suite) join(store discovery.Store) discovery.Store {
	s.Helper()
	if s.Join == nil {
		s.Skip("the backend has one handle alone")
	}
	return s.closing(s.Join(s, store))
}

func (s *suite) closing(store discovery.Store) discovery.Store {
	s.Helper()
	if store == nil {
		s.Fatal("the backend gave no store")
	}
	s.Cleanup(func() {
		if err := s.closed(store); err != nil {
			s.Errorf("Close: %v", err)
		}
	})
	return store
}

// close closes a store, which must succeed.
func (s *suite) close(store discovery.Store) {
	s.Helper()
	if err := s.closed(store); err != nil {
		s.Fatalf("Close: %v", err)
	}
}

// closed closes a store and returns the error, also if that takes too long: a Close that
// hangs would otherwise last until the test binary's timeout, and no test would say why.
func (s *suite) closed(store discovery.Store) error {
	done := make(chan error, 1)
	go func() { done <- store.Close() }()
	timer := time.NewTimer(s.Patience)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("it has not returned after %v; it may wait for the store's goroutines, but not for the readers of watches", s.Patience)
	}
}

// soon returns a context for a call that must return at once.
func (s *suite) soon() context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.Patience)
	s.Cleanup(cancel)
	return ctx
}

// put puts a record that the store keeps alive.
func (s *suite) put(store discovery.Store, key, value string) discovery.Lease {
	s.Helper()
	return s.putFor(store, key, value, 0)
}

func (s *suite) putFor(store discovery.Store, key, value string, ttl time.Duration) discovery.Lease {
	s.Helper()
	lease, err := store.Put(s.soon(), key, []byte(value), ttl)
	if err != nil {
		s.Fatalf("Put(%s, ttl %v): %v", key, ttl, err)
	}
	return lease
}

func (s *suite) release(lease discovery.Lease) {
	s.Helper()
	if err := lease.Release(s.soon()); err != nil {
		s.Fatalf("Release: %v", err)
	}
}
