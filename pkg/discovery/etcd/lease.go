package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/internal/owner"
)

// keptRecord is a kept record and its [discovery.Lease].
type keptRecord struct {
	keeper   *keeper
	key      string
	value    []byte
	replaced bool // the key is another owner's for now; guarded by keeper.mu
}

// put publishes a record and keeps it.
func (k *keeper) put(ctx context.Context, key string, value []byte, _ time.Duration) (discovery.Lease, error) {
	r := &keptRecord{keeper: k, key: key, value: append([]byte(nil), value...)}
	k.begin(key)
	var rev int64
	err := k.store.insist(ctx, func(ctx context.Context) error {
		id, err := k.grant(ctx)
		if err != nil {
			return err
		}
		resp, err := k.store.client.Put(ctx, key, string(value), clientv3.WithLease(id))
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			k.lost(id)
			k.renewSoon()
			return errLeaseLost
		}
		if err == nil {
			rev = resp.Header.Revision
		}
		return err
	})
	k.end(key, rev, r, err)
	if errors.Is(err, errLeaseLost) {
		err = k.store.leaseLost(ctx)
	}
	if err != nil {
		return nil, err
	}
	k.start.Do(func() { k.store.wg.Go(k.run) })
	return r, nil
}

// puts are the Puts of one key that are under way at the same time.
type puts struct {
	n   int
	rev int64 // of the latest of them that has ended
}

// begin and end stand round every write of a key. The latest write in etcd's
// order decides what is kept, even if its answer comes first.
func (k *keeper) begin(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.putting[key] == nil {
		k.putting[key] = &puts{}
	}
	k.putting[key].n++
}

// end takes the revision of the write and what is to be kept since: nil for a
// record that is not.
func (k *keeper) end(key string, rev int64, r *keptRecord, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.putting[key]
	if p.n--; p.n == 0 {
		delete(k.putting, key)
	}
	if err != nil {
		k.doubt = true // etcd may have it all the same
		return
	}
	if rev < p.rev {
		return
	}
	p.rev = rev
	if r != nil {
		k.kept[key] = r
	} else {
		delete(k.kept, key)
	}
}

// Release implements [discovery.Lease]. It takes 2 seconds at most. If it fails,
// the record goes with the next renewal of the lease that succeeds, or with the
// lease.
func (r *keptRecord) Release(ctx context.Context) error {
	k := r.keeper
	k.mu.Lock()
	if k.kept[r.key] != r {
		k.mu.Unlock()
		return nil // put again, or released
	}
	delete(k.kept, r.key)
	writing := k.writing
	k.mu.Unlock()

	ctx, leave, err := k.store.enter(ctx)
	if err != nil {
		return nil // closed, and so released
	}
	defer leave()
	err = k.store.call(ctx, func(ctx context.Context) error {
		if writing != nil {
			// It may write this record once more.
			select {
			case <-writing:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return k.remove(ctx, r)
	})
	if errors.Is(err, discovery.ErrClosed) {
		return nil
	}
	if err != nil {
		k.doubts()
		return fmt.Errorf("releasing %s (it expires within %ds): %w", r.key, k.ttl, err)
	}
	k.store.log.Debug("released", "key", r.key)
	return nil
}

// remove deletes a record unless somebody else has put its key since.
func (k *keeper) remove(ctx context.Context, r *keptRecord) error {
	k.mu.Lock()
	lease := k.lease
	k.mu.Unlock()
	removed, err := k.store.client.Txn(ctx).
		If(clientv3.Compare(clientv3.LeaseValue(r.key), "=", lease)).
		Then(clientv3.OpDelete(r.key)).
		Else(clientv3.OpGet(r.key)).
		Commit()
	if err != nil || removed.Succeeded {
		return err
	}
	for _, found := range removed.Responses[0].GetResponseRange().Kvs {
		if r.owns(found) {
			_, err = k.store.client.Txn(ctx).
				If(clientv3.Compare(clientv3.ModRevision(r.key), "=", found.ModRevision)).
				Then(clientv3.OpDelete(r.key)).
				Commit()
		}
	}
	return err
}

// owns reports whether what was found under the record's key, and not under its
// lease, is the record all the same: somebody has written it again or damaged it,
// without a lease, so that it would stay for ever. What has a lease has an owner
// or an end.
func (r *keptRecord) owns(found *mvccpb.KeyValue) bool {
	return found.Lease == 0 && (owner.Same(r.value, found.Value) || owner.Damaged(r.value, found.Value))
}

// briefRecord is the [discovery.Lease] of a record that nothing renews. It
// stands under an etcd lease of its own.
type briefRecord struct {
	store *Store
	key   string
	lease clientv3.LeaseID
}

// putBrief publishes a record for ttl, rounded up to whole seconds.
func (k *keeper) putBrief(ctx context.Context, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	r := &briefRecord{store: k.store, key: key}
	k.begin(key)
	var rev int64
	err := k.store.insist(ctx, func(ctx context.Context) error {
		id := newLeaseID()
		_, err := k.grants.LeaseGrant(ctx, &etcdserverpb.LeaseGrantRequest{ID: int64(id), TTL: wholeSeconds(ttl)})
		if err != nil {
			k.store.discard(id)
			return err
		}
		resp, err := k.store.client.Put(ctx, key, string(value), clientv3.WithLease(id))
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return errLeaseLost // it took etcd longer than ttl
		}
		if err != nil {
			k.store.discard(id)
			return err
		}
		r.lease, rev = id, resp.Header.Revision
		return nil
	})
	k.end(key, rev, nil, err)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// discard ends a lease that nothing stands under, as far as its owner knows, and
// does not make the owner wait: Close does, or nothing would go out from a
// process that ends.
func (s *Store) discard(id clientv3.LeaseID) {
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if _, err := s.client.Revoke(ctx, id); err != nil {
			s.log.Debug("a lease without a record is left to expire", "error", err)
		}
	})
}

// Release implements [discovery.Lease].
func (r *briefRecord) Release(ctx context.Context) error {
	ctx, leave, err := r.store.enter(ctx)
	if err != nil {
		return nil // closed: the record expires by itself
	}
	defer leave()
	// A record that was put again since stands under another lease.
	err = r.store.call(ctx, func(ctx context.Context) error {
		_, err := r.store.client.Revoke(ctx, r.lease)
		return err
	})
	switch {
	case err == nil:
		r.store.log.Debug("released", "key", r.key)
		return nil
	case errors.Is(err, rpctypes.ErrLeaseNotFound), errors.Is(err, discovery.ErrClosed):
		return nil
	}
	return fmt.Errorf("releasing %s: %w", r.key, err)
}
