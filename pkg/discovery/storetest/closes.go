package storetest

import (
	"errors"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

func closeReleases(s *suite) {
	store := s.open()
	owner := s.join(store)
	lease := s.put(owner, ep+"a", "1")
	s.put(owner, "v1/down/dynamo/a", "1")
	f := s.follow(store, ep)
	f.until(want{ep + "a": "1"})
	s.close(owner)
	s.stands(store, ep, want{})
	s.stands(store, "v1/down/", want{})
	f.until(want{})
	s.put(store, ep+"a", "2")
	s.release(lease) // does nothing
	s.stands(store, ep, want{ep + "a": "2"})
}

func closeLeavesTTL(s *suite) {
	store := s.open()
	owner := s.join(store)
	s.putFor(owner, ep+"a", "1", s.TTL)
	s.close(owner)
	f := s.followFor(store, ep, s.TTL+s.Patience)
	f.until(want{ep + "a": "1"})
	f.until(want{})
}

func closeEndsWatches(s *suite) {
	store := s.open()
	f := s.follow(store, ep)
	f.until(want{})
	// A watch that is waiting while the store is closed ends too.
	waiting := make(chan error, 1)
	begun := make(chan struct{}, 1)
	ctx := s.soon()
	go func() {
		for _, err := range store.Watch(ctx, ep) {
			if err != nil {
				waiting <- err
				return
			}
			select {
			case begun <- struct{}{}:
			default:
			}
		}
		waiting <- errors.New("no error")
	}()
	select {
	case <-begun:
	case err := <-waiting:
		s.Fatalf("the watch ended: %v", err)
	}
	s.close(store)
	if err := <-waiting; !errors.Is(err, discovery.ErrClosed) {
		s.Errorf("a watch that waited as its store was closed ended with: %v, want %v", err, discovery.ErrClosed)
	}
	if err := f.end(); !errors.Is(err, discovery.ErrClosed) {
		s.Errorf("a watch whose store was closed ended with: %v, want %v", err, discovery.ErrClosed)
	}
}

// closeWaitsForNoReader closes a store while a reader is busy with a set, and from within
// a reader.
func closeWaitsForNoReader(s *suite) {
	store := s.open()
	busy := s.follow(store, ep)
	busy.until(want{})
	var last error
	for _, err := range store.Watch(s.soon(), ep) {
		if last = err; err == nil {
			s.close(store)
		}
	}
	if !errors.Is(last, discovery.ErrClosed) {
		s.Errorf("a watch whose reader closed the store ended with: %v, want %v", last, discovery.ErrClosed)
	}
	if err := busy.end(); !errors.Is(err, discovery.ErrClosed) {
		s.Errorf("a watch whose reader was busy as the store was closed ended with: %v, want %v", err, discovery.ErrClosed)
	}
}

func closedRefuses(s *suite) {
	store := s.open()
	lease := s.put(store, ep+"a", "1")
	var wg sync.WaitGroup
	for range 2 { // closing twice is fine, also at the same time
		wg.Go(func() {
			if err := s.closed(store); err != nil {
				s.Errorf("Close: %v", err)
			}
		})
	}
	wg.Wait()
	if _, err := store.Put(s.soon(), ep+"b", []byte("2"), 0); !errors.Is(err, discovery.ErrClosed) {
		s.Errorf("Put into a closed store: %v, want %v", err, discovery.ErrClosed)
	}
	if err := s.follow(store, ep).end(); !errors.Is(err, discovery.ErrClosed) {
		s.Errorf("Watch of a closed store ended with: %v, want %v", err, discovery.ErrClosed)
	}
	s.release(lease)
}

func closeLeavesNoGoroutine(s *suite) {
	store := s.open()
	s.put(store, ep+"a", "1")
	s.stands(store, ep, want{ep + "a": "1"})
	var before map[string]string
	if s.Join != nil {
		// The first handle stays open: goroutines that its goroutines start don't count.
		before = goroutines()
		store = s.join(store)
	} else {
		s.close(store)
		before = goroutines()
		store = s.open()
	}
	f := s.follow(store, ep)
	f.set()
	s.put(store, ep+"b", "2")
	s.putFor(store, ep+"c", "3", time.Hour)
	f.untilThat("b is there", func(snap discovery.Snapshot) bool { return len(snap.Records) >= 2 })
	s.close(store)
	if err := f.end(); !errors.Is(err, discovery.ErrClosed) { // the watch runs on a goroutine of the suite's
		s.Errorf("the watch ended with: %v, want %v", err, discovery.ErrClosed)
	}

	// A goroutine that has ended may still be listed for a moment.
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for deadline := s.soon(); ; {
		left := goroutines()
		maps.DeleteFunc(left, func(id, stack string) bool { return before[id] != "" || before[creator(stack)] != "" })
		if len(left) == 0 {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline.Done():
			stacks := slices.Collect(maps.Values(left))
			s.Fatalf("Close leaves %d goroutines:\n\n%s", len(left), strings.Join(stacks, "\n\n"))
		}
	}
}

// goroutines returns the stacks of all goroutines but the caller's, by number.
func goroutines() map[string]string {
	buf := make([]byte, 1<<16)
	n := runtime.Stack(buf, true)
	for ; n == len(buf); n = runtime.Stack(buf, true) {
		buf = make([]byte, 2*len(buf))
	}
	byID := make(map[string]string)
	_, others, _ := strings.Cut(string(buf[:n]), "\n\n") // the caller's comes first
	for stack := range strings.SplitSeq(others, "\n\n") {
		id, _, _ := strings.Cut(strings.TrimPrefix(stack, "goroutine "), " ")
		byID[id] = stack
	}
	return byID
}

// creator returns the number of the goroutine that started the one with that stack.
func creator(stack string) string {
	_, created, _ := strings.Cut(stack, "\ncreated by ")
	line, _, _ := strings.Cut(created, "\n")
	_, id, _ := strings.Cut(line, " in goroutine ")
	return id
}
