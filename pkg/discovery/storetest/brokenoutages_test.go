package storetest

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// outages breaks what a watch yields in an outage, and after it. yield is the reader's;
// the wrapped one gets what a sound store yields.
func outages(wrap func(yield yieldFunc) yieldFunc) func(*discovery.Mem) discovery.Store {
	return func(shared *discovery.Mem) discovery.Store {
		return &watching{asHandle(shared), func(ctx context.Context, h *handle, prefix string) iter.Seq2[discovery.Snapshot, error] {
			return func(yield func(discovery.Snapshot, error) bool) { h.Watch(ctx, prefix)(wrap(yield)) }
		}}
	}
}

type yieldFunc = func(discovery.Snapshot, error) bool

func unnoticed(yield yieldFunc) yieldFunc {
	return func(snap discovery.Snapshot, err error) bool {
		return snap.Stale != nil || yield(snap, err)
	}
}

func emptied(yield yieldFunc) yieldFunc {
	return func(snap discovery.Snapshot, err error) bool {
		if snap.Stale != nil {
			snap.Records = nil
		}
		return yield(snap, err)
	}
}

func staleForGood(yield yieldFunc) yieldFunc {
	var stale error
	return func(snap discovery.Snapshot, err error) bool {
		if snap.Stale != nil {
			stale = snap.Stale
		}
		if err == nil {
			snap.Stale = stale
		}
		return yield(snap, err)
	}
}

func endsWithOutage(yield yieldFunc) yieldFunc {
	return func(snap discovery.Snapshot, err error) bool {
		if snap.Stale != nil {
			yield(discovery.Snapshot{}, snap.Stale)
			return false
		}
		return yield(snap, err)
	}
}

// putsIntoOutage takes records that nobody can see.
func putsIntoOutage(shared *discovery.Mem) discovery.Store {
	return puts(func(ctx context.Context, h *handle, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
		lease, err := h.Put(ctx, key, value, ttl)
		if errors.Is(err, errOutage) {
			return noLease{}, nil
		}
		return lease, err
	})(shared)
}

// watchesOldSets begins a watch in an outage with what an earlier one has yielded, as if
// that were current.
func watchesOldSets(shared *discovery.Mem) discovery.Store {
	var mu sync.Mutex
	var last discovery.Snapshot
	return &watching{asHandle(shared), func(ctx context.Context, h *handle, prefix string) iter.Seq2[discovery.Snapshot, error] {
		return func(yield func(discovery.Snapshot, error) bool) {
			if out, _ := h.isOut(); out {
				mu.Lock()
				old := last
				mu.Unlock()
				old.Stale = nil
				if !yield(old, nil) {
					return
				}
			}
			for snap, err := range h.Watch(ctx, prefix) {
				mu.Lock()
				last = snap
				mu.Unlock()
				if !yield(snap, err) {
					return
				}
			}
		}
	}}
}

// forgetful does not put its records again after an outage in which they expired.
type forgetful struct{ *handle }

func (f forgetful) setOutage(on bool) {
	f.handle.setOutage(on)
	if on {
		f.kill()
	}
}

func lostInOutage(shared *discovery.Mem) discovery.Store { return forgetful{asHandle(shared)} }

// waiting is a store whose Close waits for the readers of its watches.
type waiting struct {
	*handle
	readers sync.WaitGroup
}

func (w *waiting) Watch(ctx context.Context, prefix string) iter.Seq2[discovery.Snapshot, error] {
	return func(yield func(discovery.Snapshot, error) bool) {
		w.readers.Add(1)
		defer w.readers.Done()
		w.handle.Watch(ctx, prefix)(yield)
	}
}

func (w *waiting) Close() error {
	err := w.handle.Close()
	w.readers.Wait()
	return err
}

func waitsForReaders(shared *discovery.Mem) discovery.Store {
	return &waiting{handle: asHandle(shared)}
}

// expiring breaks Expiry.
type expiring struct {
	*handle
	expiry func(h *handle, key string, d time.Duration) time.Duration
}

func (e expiring) Expiry(ctx context.Context, key string) (time.Duration, error) {
	d, err := e.handle.Expiry(ctx, key)
	return e.expiry(e.handle, key, d), err
}

func expiryOfNothing(shared *discovery.Mem) discovery.Store {
	return expiring{asHandle(shared), func(h *handle, key string, d time.Duration) time.Duration {
		if h.find(key) == nil {
			return time.Minute
		}
		return d
	}}
}

func expiryOfKept(shared *discovery.Mem) discovery.Store {
	return expiring{asHandle(shared), func(h *handle, key string, d time.Duration) time.Duration {
		if d == 0 && h.find(key) != nil {
			return time.Hour
		}
		return d
	}}
}
