package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/internal/owner"
)

// maxContention is how often one write begins anew because somebody else has changed the
// object meanwhile.
const maxContention = 20

// A keptRecord is a record that its store keeps alive, and its [discovery.Lease].
type keptRecord struct {
	keeper *keeper
	key    string
	value  []byte

	at       atomic.Int64 // when it was last renewed, in ns after clock.began
	replaced atomic.Bool  // another owner has the key for now

	// What follows is guarded by the lock of the key.
	uid     types.UID // of the object that this store has written last
	version string

	// Of the other owner's object: what was seen of it, and since when.
	otherUID     types.UID
	otherVersion string
	otherSince   time.Time
}

func (r *keptRecord) renewed() time.Time {
	return r.keeper.store.clock.began.Add(time.Duration(r.at.Load()))
}

// yields reports whether another owner has the key.
func (r *keptRecord) yields() bool { return r.replaced.Load() }

// put publishes a record and keeps it.
func (k *keeper) put(ctx context.Context, key string, value []byte) (discovery.Lease, error) {
	unlock, err := k.lock(ctx, key)
	if err != nil {
		return nil, err
	}
	defer unlock()
	r := &keptRecord{keeper: k, key: key, value: slices.Clone(value)}
	k.mu.Lock()
	if last := k.kept[key]; last != nil {
		r.uid, r.version = last.uid, last.version
	}
	k.mu.Unlock()
	err = k.store.insist(ctx, func(ctx context.Context) error {
		if err := r.publish(ctx); err != nil {
			return err
		}
		return k.store.dropBrief(ctx, key)
	})
	if err != nil {
		return nil, err
	}
	k.take(key, r)
	k.start.Do(func() { k.store.life.Go(k.run) })
	k.store.startSweeper()
	return r, nil
}

// publish writes the record, whoever has the key. The lock of the key is held.
func (r *keptRecord) publish(ctx context.Context) error {
	for range maxContention {
		err := r.write(ctx)
		switch {
		case err == nil:
			return nil
		case apierrors.IsAlreadyExists(err), apierrors.IsConflict(err):
			found, err := r.keeper.store.find(ctx, keptName(r.key))
			if err != nil {
				return err
			}
			r.uid, r.version = found.uid, found.version
		case apierrors.IsNotFound(err) && r.version != "":
			r.uid, r.version = "", ""
		default:
			return err
		}
	}
	return errContended
}

// write makes the object, or replaces the one of r.version.
func (r *keptRecord) write(ctx context.Context) error {
	s := r.keeper.store
	began := time.Since(s.clock.began)
	lease := s.keptLease(r.key, r.value)
	verb := "create"
	if r.version != "" {
		verb = "update"
	}
	return s.call(ctx, verb, func(ctx context.Context) error {
		var o object
		var err error
		if r.version == "" {
			o, err = s.access.create(ctx, lease)
		} else {
			o, err = s.access.update(ctx, lease, r.uid, r.version)
		}
		if err == nil {
			r.uid, r.version = o.uid, o.version
			r.at.Store(int64(began))
		}
		return err
	})
}

// renew renews the record, writes it again if it was deleted, edited or damaged, and
// yields to another owner.
func (r *keptRecord) renew(ctx context.Context) error {
	k := r.keeper
	unlock, err := k.lock(ctx, r.key)
	if err != nil {
		return err
	}
	defer unlock()
	if !k.holds(r) {
		return nil // released, or put again
	}
	log := k.store.log
	for range maxContention {
		if !r.yields() {
			err := r.write(ctx)
			switch {
			case err == nil:
				return nil
			case !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) && (!apierrors.IsNotFound(err) || r.version == ""):
				return fmt.Errorf("renewing %s: %w", r.key, err)
			}
		}
		found, err := k.store.find(ctx, keptName(r.key))
		switch {
		case err != nil:
			return fmt.Errorf("reading %s: %w", r.key, err)
		case found.version == "", r.owns(found), r.expired(found):
			switch {
			case r.replaced.Swap(false):
				log.Info("registered again", "key", r.key)
			case found.version == "":
				log.Debug("the record is gone, putting it again", "key", r.key)
			default:
				log.Debug("somebody has changed the record, putting it again", "key", r.key)
			}
			r.uid, r.version = found.uid, found.version
		default:
			if !r.replaced.Swap(true) {
				log.Warn("replaced by another owner, registering again when the key is free", "key", r.key, "holder", found.holder)
			}
			return nil
		}
	}
	return fmt.Errorf("renewing %s: %w", r.key, errContended)
}

// owns reports whether an object that was found under the record's key is still the
// record, which somebody has edited, damaged or copied.
func (r *keptRecord) owns(found object) bool {
	if found.kept == nil {
		return true // not a record any more
	}
	switch found.holder {
	case r.keeper.store.identity:
		return true
	case "":
		return owner.Same(r.value, found.kept.value) || owner.Damaged(r.value, found.kept.value)
	}
	return false
}

// expired reports whether this store has seen the other owner's object unchanged for as
// long as its lease lasts.
func (r *keptRecord) expired(found object) bool {
	if found.uid != r.otherUID || found.version != r.otherVersion {
		r.otherUID, r.otherVersion, r.otherSince = found.uid, found.version, time.Now()
		return false
	}
	lifetime := found.kept.lifetime
	return lifetime > 0 && time.Since(r.otherSince) >= lifetime
}

// Release implements [discovery.Lease]. It takes 3 seconds at most. If it fails, the
// record expires with its lease.
func (r *keptRecord) Release(ctx context.Context) error {
	k := r.keeper
	if !k.drop(r) {
		return nil // put again, or released
	}
	ctx, leave, err := k.store.life.Enter(ctx)
	if err != nil {
		return nil // Close has released it
	}
	defer leave()
	err = k.store.call(ctx, "delete", func(ctx context.Context) error {
		unlock, err := k.lock(ctx, r.key)
		if err != nil {
			return err
		}
		defer unlock()
		return r.remove(ctx)
	})
	if errors.Is(err, discovery.ErrClosed) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("releasing %s (it expires within %v): %w", r.key, k.store.cfg.LeaseTTL, err)
	}
	k.store.log.Debug("released", "key", r.key)
	return nil
}

// remove deletes the object unless another owner has the key. The lock of the key is
// held, unless the store is closed.
func (r *keptRecord) remove(ctx context.Context) error {
	if r.yields() || r.version == "" {
		return nil
	}
	access := r.keeper.store.access
	for range maxContention {
		err := access.remove(ctx, keptName(r.key), r.uid, r.version)
		if err == nil || apierrors.IsNotFound(err) {
			return nil
		}
		if !apierrors.IsConflict(err) {
			return err
		}
		found, err := access.get(ctx, keptName(r.key))
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err != nil:
			return err
		case !r.owns(found):
			return nil
		}
		r.uid, r.version = found.uid, found.version
	}
	return errContended
}
