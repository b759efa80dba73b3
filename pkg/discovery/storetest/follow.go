package storetest

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// Prefixes of the suite's records.
const (
	ep  = "v1/instances/dynamo/backend/generate/"
	ep2 = "v1/instances/dynamo/backend/generate2/"
)

// want is a set of records, values by key.
type want map[string]string

// matches reports whether snap is exactly the set w.
func (w want) matches(snap discovery.Snapshot) bool {
	got := make(want, len(snap.Records))
	for _, r := range snap.Records {
		got[r.Key] = string(r.Value)
	}
	return maps.Equal(w, got)
}

func (w want) String() string { return fmt.Sprint(slices.Sorted(maps.Keys(w))) }

// A follower reads one watch, a pair at a time and only when it is asked to.
type follower struct {
	s      *suite
	prefix string
	pull   func() (discovery.Snapshot, error, bool)
	cancel context.CancelFunc
	last   discovery.Snapshot
}

// follow watches prefix for s.Patience, in which sets that are due at once come.
func (s *suite) follow(store discovery.Store, prefix string) *follower {
	s.Helper()
	return s.followFor(store, prefix, s.Patience)
}

func (s *suite) followFor(store discovery.Store, prefix string, d time.Duration) *follower {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), d)
	pull, stop := iter.Pull2(store.Watch(ctx, prefix))
	s.Cleanup(func() { cancel(); stop() })
	return &follower{s: s, prefix: prefix, pull: pull, cancel: cancel}
}

// next returns the next pair, and checks what must hold for every set.
func (f *follower) next() (discovery.Snapshot, error) {
	f.s.Helper()
	snap, err, ok := f.pull()
	if !ok {
		f.s.Fatal("the watch ended without an error")
	}
	if err != nil {
		return discovery.Snapshot{}, err
	}
	for i, r := range snap.Records {
		if !strings.HasPrefix(r.Key, f.prefix) {
			f.s.Fatalf("the watch of %s yielded %q", f.prefix, r.Key)
		}
		if len(r.Value) == 0 {
			f.s.Fatalf("the value of %q is empty", r.Key)
		}
		if i > 0 && r.Key <= snap.Records[i-1].Key {
			f.s.Fatalf("a set is not sorted by key: %q before %q", snap.Records[i-1].Key, r.Key)
		}
	}
	f.last = snap
	return snap, nil
}

// set returns the next pair, which must be a set.
func (f *follower) set() discovery.Snapshot {
	f.s.Helper()
	snap, err := f.next()
	if err != nil {
		f.s.Fatalf("the watch of %s ended: %v", f.prefix, err)
	}
	return snap
}

// until reads until a set is exactly w, and returns how many sets it read.
func (f *follower) until(w want) int {
	f.s.Helper()
	return f.untilThat(w.String(), w.matches)
}

func (f *follower) untilThat(what string, ok func(discovery.Snapshot) bool) int {
	f.s.Helper()
	for n := 1; ; n++ {
		snap, err := f.next()
		if err != nil {
			f.s.Fatalf("the watch of %s ended before %s: %v\nthe last set was %s", f.prefix, what, err, describe(f.last))
		}
		if ok(snap) {
			return n
		}
	}
}

// end reads until the watch ends, and returns its error.
func (f *follower) end() error {
	f.s.Helper()
	for {
		if _, err := f.next(); err != nil {
			if _, _, more := f.pull(); more {
				f.s.Error("the watch went on after its error")
			}
			return err
		}
	}
}

// stands checks that a new watch begins with exactly the set w.
func (s *suite) stands(store discovery.Store, prefix string, w want) {
	s.Helper()
	f := s.follow(store, prefix)
	defer f.cancel()
	if snap := f.set(); !w.matches(snap) {
		s.Fatalf("a new watch of %s begins with %s, want %v", prefix, describe(snap), w)
	}
}

func describe(snap discovery.Snapshot) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d records", len(snap.Records))
	for _, r := range snap.Records[:min(10, len(snap.Records))] {
		fmt.Fprintf(&b, "\n\t%q = %.60q", r.Key, r.Value)
	}
	if snap.Stale != nil {
		fmt.Fprintf(&b, "\n\tstale: %v", snap.Stale)
	}
	return b.String()
}
