package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/request-migration/migrate/pkg/discovery"
)

// A briefRecord is the [discovery.Lease] of a record with a ttl.
type briefRecord struct {
	store *Store
	brief briefValue
}

// putBrief publishes a record for ttl. It stands from when this store no longer keeps
// another under the key.
func (k *keeper) putBrief(ctx context.Context, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	unlock, err := k.lock(ctx, key)
	if err != nil {
		return nil, err
	}
	defer unlock()
	s := k.store
	b, err := s.newBrief(key, value, ttl)
	if err != nil {
		return nil, err
	}
	kept := k.take(key, nil)
	err = s.insist(ctx, func(ctx context.Context) error {
		if err := s.addBrief(ctx, b); err != nil || kept == nil {
			return err
		}
		// A reader sees the record with the ttl as long as there are both.
		return s.call(ctx, "delete", kept.remove)
	})
	if err != nil {
		return nil, err
	}
	return &briefRecord{store: s, brief: b}, nil
}

// addBrief adds a record to the object that it shares, or makes that object.
func (s *Store) addBrief(ctx context.Context, b briefValue) error {
	name := briefName(b.Key)
	for range maxContention {
		err := s.call(ctx, "patch", func(ctx context.Context) error {
			_, err := s.access.setAnnotation(ctx, name, b.annotation, b.raw)
			return err
		})
		if !apierrors.IsNotFound(err) {
			return err
		}
		err = s.call(ctx, "create", func(ctx context.Context) error {
			_, err := s.access.create(ctx, s.briefLease(b))
			return err
		})
		if !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return errContended
}

// dropBrief removes the record with a ttl that there may be under a key.
func (s *Store) dropBrief(ctx context.Context, key string) error {
	found, err := s.find(ctx, briefName(key))
	if err != nil {
		return err
	}
	b, ok := found.briefs[key]
	if !ok {
		return nil
	}
	return s.prune(ctx, found, []briefValue{b})
}

// prune removes records with a ttl that are as they were found, and the object if
// nothing is left in it.
func (s *Store) prune(ctx context.Context, o object, gone []briefValue) error {
	values := make(map[string]string, len(gone))
	for _, b := range gone {
		values[b.annotation] = b.raw
	}
	var left object
	err := s.call(ctx, "patch", func(ctx context.Context) (err error) {
		left, err = s.access.dropAnnotations(ctx, o.name, values)
		return err
	})
	if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) {
		return nil // removed, or put again
	}
	if err != nil || len(left.briefs) > 0 {
		return err
	}
	err = s.call(ctx, "delete", func(ctx context.Context) error {
		return s.access.remove(ctx, left.name, left.uid, left.version)
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // removed, or in use again
	}
	return err
}

// Release implements [discovery.Lease].
func (r *briefRecord) Release(ctx context.Context) error {
	s := r.store
	ctx, leave, err := s.life.Enter(ctx)
	if err != nil {
		return nil // the store is closed: the record expires with its ttl
	}
	defer leave()
	err = s.insist(ctx, func(ctx context.Context) error {
		return s.prune(ctx, object{name: briefName(r.brief.Key)}, []briefValue{r.brief})
	})
	switch {
	case err == nil:
		s.log.Debug("released", "key", r.brief.Key)
		return nil
	case errors.Is(err, discovery.ErrClosed):
		return nil
	}
	return fmt.Errorf("releasing %s: %w", r.brief.Key, err)
}
