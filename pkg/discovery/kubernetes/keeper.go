package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/discovery/internal/remote"
)

// maxWrites is how many of a store's kept records are renewed, or released, at the same
// time. A server has a few.
const maxWrites = 16

// A keeper renews a store's kept records.
type keeper struct {
	store    *Store
	interval time.Duration
	start    sync.Once

	mu    sync.Mutex // guards what follows
	kept  map[string]*keptRecord
	locks map[string]*keyLock
}

func newKeeper(s *Store) *keeper {
	return &keeper{
		store: s,
		// The lease survives two failed renewals. 3 s at most, so that what somebody
		// has done to a record is noticed within 5 s.
		interval: min(s.cfg.LeaseTTL/3, 3*time.Second),
		kept:     make(map[string]*keptRecord),
		locks:    make(map[string]*keyLock),
	}
}

// A keyLock lets the writes of one key happen one after another.
type keyLock struct {
	held  chan struct{} // has a token while somebody writes
	users int           // who hold it or wait for it; guarded by keeper.mu
}

// lock waits until nobody else of this store writes the key.
func (k *keeper) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	l := k.locks[key]
	if l == nil {
		l = &keyLock{held: make(chan struct{}, 1)}
		k.locks[key] = l
	}
	l.users++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.locks, key)
		}
	}
	select {
	case l.held <- struct{}{}:
		return func() { <-l.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

// holds reports whether r is what the store keeps under its key.
func (k *keeper) holds(r *keptRecord) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.kept[r.key] == r
}

// drop stops keeping r, and reports whether the store kept it.
func (k *keeper) drop(r *keptRecord) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kept[r.key] != r {
		return false
	}
	delete(k.kept, r.key)
	return true
}

// take returns what the store keeps under a key, and keeps next instead, if that is not
// nil.
func (k *keeper) take(key string, next *keptRecord) (last *keptRecord) {
	k.mu.Lock()
	defer k.mu.Unlock()
	last = k.kept[key]
	if next != nil {
		k.kept[key] = next
	} else {
		delete(k.kept, key)
	}
	return last
}

// run renews the kept records until Close.
func (k *keeper) run() {
	ctx := k.store.life.Context
	out := remote.Outage{Log: k.store.log, Store: "Kubernetes"}
	for {
		pause := k.interval - rand.N(k.interval/10) // spreads the renewals of a fleet that was started at once
		if err := k.renew(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			pause = out.Failed(err, kindOf(err), transient(err), askedBy(err))
		} else {
			out.Ended(k.stand())
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// renew renews every kept record that is due, and returns one of the errors.
func (k *keeper) renew(ctx context.Context) error {
	return k.each(ctx, func(ctx context.Context, r *keptRecord) error {
		// After a round of which a part failed, the rest is not due yet.
		if time.Since(r.renewed()) < k.interval/2 {
			return nil
		}
		return r.renew(ctx)
	})
}

// each does something for all kept records, several at a time, and returns the first
// error.
func (k *keeper) each(ctx context.Context, do func(context.Context, *keptRecord) error) error {
	k.mu.Lock()
	all := make([]*keptRecord, 0, len(k.kept))
	for _, r := range k.kept {
		all = append(all, r)
	}
	k.mu.Unlock()
	var (
		writing  sync.WaitGroup
		mu       sync.Mutex
		firstErr error
	)
	free := make(chan struct{}, maxWrites)
	for _, r := range all {
		free <- struct{}{} // comes free when ctx ends, too
		writing.Go(func() {
			defer func() { <-free }()
			if err := do(ctx, r); err != nil {
				mu.Lock()
				defer mu.Unlock()
				if firstErr == nil {
					firstErr = err
				}
			}
		})
	}
	writing.Wait()
	return firstErr
}

// stand reports whether any kept record stands, as far as this store knows.
func (k *keeper) stand() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.kept {
		if !r.yields() {
			return true
		}
	}
	return false
}

// close releases every record within closeTimeout.
func (k *keeper) close() error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), closeTimeout, remote.NoAnswer(closeTimeout))
	defer cancel()
	err := k.each(ctx, func(ctx context.Context, r *keptRecord) error {
		k.drop(r)
		return k.store.explain(ctx, "delete", r.remove(ctx))
	})
	if err != nil {
		return fmt.Errorf("releasing the records in Kubernetes (they expire within %v): %w", k.store.cfg.LeaseTTL, err)
	}
	return nil
}

// errContended says that others kept writing a Lease.
var errContended = errors.New("others keep changing the Lease")
