package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/request-migration/migrate/pkg/discovery"
)

func firstSetAtOnce(s *suite) {
	store := s.open()
	s.stands(store, ep, want{})
	s.stands(store, "v1/down/", want{})
	s.put(store, ep+"a", "1")
	s.stands(store, ep, want{ep + "a": "1"})
}

func prefixEndsAtSlash(s *suite) {
	store := s.open()
	records := want{
		ep + "a":                  "1",
		ep2 + "a":                 "2",
		"v1/instances/dynamo/x":   "3",
		"v1/instances/dynamo/x/y": "4",
		"v1/down/dynamo/backend":  "5",
		"v1/instances2/dynamo/x":  "6",
		ep + "sub/a":              "7",
		ep[:len(ep)-1]:            "8",
	}
	for key, value := range records {
		s.put(store, key, value)
	}
	s.stands(store, ep, want{ep + "a": "1", ep + "sub/a": "7"})
	s.stands(store, ep2, want{ep2 + "a": "2"})
	s.stands(store, "v1/instances/dynamo/x/", want{"v1/instances/dynamo/x/y": "4"})
	s.stands(store, "v1/down/", want{"v1/down/dynamo/backend": "5"})
	delete(records, "v1/down/dynamo/backend")
	delete(records, "v1/instances2/dynamo/x")
	s.stands(store, "v1/instances/", records)
}

func slowReader(s *suite) {
	store := s.open()
	slow := s.follow(store, ep)
	slow.until(want{})
	const changes = 100
	for i := range changes {
		s.put(store, ep+"a", fmt.Sprint(i))
	}
	last := want{ep + "a": fmt.Sprint(changes - 1)}
	// A reader that keeps up shows when the backend has delivered everything.
	s.follow(store, ep).until(last)
	// A few sets in between may come while the store itself catches up.
	if n := slow.until(last); n > changes/10 {
		s.Errorf("a slow reader got %d sets for %d changes: a backlog, not the latest", n, changes)
	}
}

func independentWatches(s *suite) {
	store := s.open()
	first, second, other := s.follow(store, ep), s.follow(store, ep), s.follow(store, ep2)
	for _, f := range []*follower{first, second, other} {
		f.until(want{})
	}
	s.put(store, ep+"a", "1")
	first.until(want{ep + "a": "1"})
	first.cancel()
	s.put(store, ep2+"b", "2")
	second.until(want{ep + "a": "1"})
	other.until(want{ep2 + "b": "2"})
	if err := first.end(); !errors.Is(err, context.Canceled) {
		s.Errorf("the watch that was cancelled ended with %v", err)
	}
	s.put(store, ep+"c", "3")
	second.until(want{ep + "a": "1", ep + "c": "3"})
}

func setsDoNotChange(s *suite) {
	store := s.open()
	f := s.follow(store, ep)
	kept := make([]discovery.Snapshot, 0, 20)
	sets := make([]want, 0, 20)
	w := want{}
	for i := range cap(kept) {
		key := fmt.Sprintf("%s%d", ep, i%7)
		w[key] = fmt.Sprint(i)
		s.put(store, key, w[key])
		f.until(w)
		kept = append(kept, f.last)
		sets = append(sets, maps.Clone(w))
	}
	for i, snap := range kept {
		if !sets[i].matches(snap) {
			s.Errorf("set %d has changed since it was yielded: %s", i, describe(snap))
		}
	}
}

func watchEndsWithContext(s *suite) {
	store := s.open()
	f := s.follow(store, ep)
	f.until(want{})
	f.cancel()
	if err := f.end(); !errors.Is(err, context.Canceled) {
		s.Errorf("a watch whose context was cancelled ended with %v, want %v", err, context.Canceled)
	}

	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	ended := 0
	for snap, err := range store.Watch(ctx, ep) {
		ended++
		if !errors.Is(err, context.Canceled) {
			s.Errorf("a watch with a cancelled context yielded %s, %v, want %v alone", describe(snap), err, context.Canceled)
		}
	}
	if ended != 1 {
		s.Errorf("a watch with a cancelled context yielded %d pairs, want its error alone", ended)
	}
}

func watchEndsWithBreak(s *suite) {
	store := s.open()
	watch := store.Watch(s.soon(), ep)
	for range 2 { // the same sequence can be ranged over again
		for snap, err := range watch {
			if err != nil || len(snap.Records) != 0 {
				s.Fatalf("the watch began with %s, %v", describe(snap), err)
			}
			break
		}
	}
	s.put(store, ep+"a", "1") // a watch that nobody reads does not block it
	s.stands(store, ep, want{ep + "a": "1"})
}

func badPrefixes(s *suite) {
	store := s.open()
	for _, prefix := range []string{
		"", "/", "v1", "v1/", "v1/instances", ep + "a", "v1//", "/v1/instances/", "v1/instances//",
		"v1/../", "v1/instances/../", "v1/instances/a\x00/", "v1/instances/\xff/", "v1/inst ances/",
	} {
		pairs := 0
		for _, err := range store.Watch(s.soon(), prefix) {
			if pairs++; err == nil {
				s.Errorf("Watch took the prefix %q", prefix)
				break
			}
		}
		if pairs != 1 {
			s.Errorf("Watch(%q) yielded %d pairs, want its error alone", prefix, pairs)
		}
	}
}
