package storetest

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// backend returns one of the stores that the suite itself is tested with. They all
// live in this process, so that time can be fake and no test waits.
func backend(wrap func(shared *discovery.Mem) discovery.Store) Backend {
	var current *discovery.Mem
	return Backend{
		Open: func(testing.TB) discovery.Store {
			current = new(discovery.Mem)
			return wrap(current)
		},
		Join: func(testing.TB, discovery.Store) discovery.Store { return wrap(current) },
		Kill: func(_ testing.TB, s discovery.Store) {
			if k, ok := s.(interface{ kill() }); ok {
				k.kill()
			}
		},
		Break: func(_ testing.TB, s discovery.Store) { s.(interface{ setOutage(on bool) }).setOutage(true) },
		Heal:  func(_ testing.TB, s discovery.Store) { s.(interface{ setOutage(on bool) }).setOutage(false) },
		Overwrite: func(tb testing.TB, _ discovery.Store, key string, value []byte) {
			tb.Helper()
			if _, err := current.Put(tb.Context(), key, value, 0); err != nil {
				tb.Fatal(err)
			}
		},
	}
}

func TestSoundStorePasses(t *testing.T) {
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) {
			if failures := try(t, c, backend(newHandle)); len(failures) > 0 {
				t.Error(failures)
			}
		})
	}
}

// TestBrokenStoresFail shows that every check can fail.
func TestBrokenStoresFail(t *testing.T) {
	caught := make(map[string]bool)
	for _, broken := range brokenStores() {
		t.Run(broken.name, func(t *testing.T) {
			for _, c := range checks() {
				failed := len(try(t, c, backend(broken.wrap))) > 0
				caught[c.name] = caught[c.name] || failed
				if !failed && slices.Contains(broken.caughtBy, c.name) {
					t.Errorf("%s passes", c.name)
				}
			}
		})
	}
	for _, c := range checks() {
		if !caught[c.name] {
			t.Errorf("no broken store fails %s", c.name)
		}
	}
}

// TestSkips shows that a backend may have a single handle.
func TestSkips(t *testing.T) {
	b := Backend{Open: func(testing.TB) discovery.Store { return new(discovery.Mem) }}
	for _, c := range checks() {
		if failures := try(t, c, b); len(failures) > 0 {
			t.Errorf("%s: %v", c.name, failures)
		}
	}
}

// try runs one check in a bubble of fake time and returns its failures.
func try(t *testing.T, c check, b Backend) (failures []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{TB: t}
		ended := make(chan struct{})
		go func() { // because FailNow ends the goroutine
			defer close(ended)
			defer r.cleanup()
			c.run(newSuite(r, b))
		}()
		<-ended
		<-time.After(24 * time.Hour) // until everything has ended that a broken store left running
		failures = r.failures
	})
	return failures
}

// A recorder is a testing.TB that remembers failures instead of failing.
type recorder struct {
	testing.TB

	mu       sync.Mutex // guards what follows
	failures []string
	cleanups []func()
}

func (r *recorder) fail(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, s)
}

func (r *recorder) Errorf(format string, args ...any) { r.fail(fmt.Sprintf(format, args...)) }
func (r *recorder) Error(args ...any)                 { r.fail(fmt.Sprint(args...)) }
func (r *recorder) Fatalf(format string, args ...any) {
	r.fail(fmt.Sprintf(format, args...))
	runtime.Goexit()
}
func (r *recorder) Fatal(args ...any) { r.fail(fmt.Sprint(args...)); runtime.Goexit() }
func (r *recorder) Skip(...any)       { runtime.Goexit() }

func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *recorder) cleanup() {
	for _, f := range slices.Backward(r.cleanups) {
		f()
	}
}
