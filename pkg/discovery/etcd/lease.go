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

// A keptRecord is a record that its store keeps alive, and its [discovery.Lease].
type keptRecord struct {
	keeper   *keeper
	key      string
	value    []byte
	replaced bool // another owner has the key for now; guarded by keeper.mu
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
	k.start.Do(func() { k.store.life.Go(k.run) })
	return r, nil
}

// puts are the Puts of one key that run at the same time.
type puts struct {
	n   int
	rev int64 // the highest of those that have ended
}

// begin and end enclose every write of a key. The write with the highest revision
// decides what is kept, whichever is answered first.
func (k *keeper) begin(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.putting[key] == nil {
		k.putting[key] = &puts{}
	}
	k.putting[key].n++
}

// end takes the revision of the write and the record to keep, which is nil for a
// record with a ttl.
func (k *keeper) end(key string, rev int64, r *keptRecord, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.putting[key]
	if p.n--; p.n == 0 {
		delete(k.putting, key)
	}
	if err != nil {
		k.doubt = true // etcd may have it nevertheless
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
// the next renewal that succeeds removes the record, or the record expires with the
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

	ctx, leave, err := k.store.life.Enter(ctx)
	if err != nil {
		return nil // Close has released it
	}
	defer leave()
	err = k.store.call(ctx, func(ctx context.Context) error {
		if writing != nil {
			// The rewriting under way may write this record once more.
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

// remove deletes a record unless another owner has put its key since.
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

// owns reports whether a value that was found under the record's key, but not under
// its lease, is still the record: somebody has copied or damaged it without a lease,
// so that it would stay for ever. A value with another lease has another owner.
func (r *keptRecord) owns(found *mvccpb.KeyValue) bool {
	return found.Lease == 0 && (owner.Same(r.value, found.Value) || owner.Damaged(r.value, found.Value))
}

// A briefRecord is the [discovery.Lease] of a record with a ttl. The record has an
// etcd lease of its own, which nobody renews.
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
			return errLeaseLost // it expired before etcd took the record
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

// discard revokes a lease without a record in the background. Close waits for it,
// because a process that ended at once would not revoke anything.
func (s *Store) discard(id clientv3.LeaseID) {
	s.life.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if _, err := s.client.Revoke(ctx, id); err != nil {
			s.log.Debug("a lease without a record is left to expire", "error", err)
		}
	})
}

// Release implements [discovery.Lease].
func (r *briefRecord) Release(ctx context.Context) error {
	ctx, leave, err := r.store.life.Enter(ctx)
	if err != nil {
		return nil // the store is closed: the record expires with its ttl
	}
	defer leave()
	// A record that was put again since has another lease.
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
