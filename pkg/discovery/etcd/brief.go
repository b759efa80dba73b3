package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/request-migration/migrate/pkg/discovery"
)

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

// Left returns how long the record under key stands unless its owner renews its
// lease, to half a second: 0 if it isn't there, or has no lease. It takes one
// request for a record that a watch of this store has, and else two.
func (s *Store) Left(ctx context.Context, key string) (time.Duration, error) {
	ctx, leave, err := s.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	var left time.Duration
	err = s.call(ctx, func(ctx context.Context) error {
		id, known := s.leaseOf(key)
		if !known {
			record, err := s.client.Get(ctx, key) // without its value etcd leaves out the lease
			if err != nil || len(record.Kvs) == 0 {
				return err
			}
			id = clientv3.LeaseID(record.Kvs[0].Lease)
		}
		if id == 0 {
			return nil
		}
		lease, err := s.client.TimeToLive(ctx, id)
		if err != nil {
			return err
		}
		// etcd rounds down; -1 stands for a lease that has expired meanwhile.
		left = time.Duration(lease.TTL)*time.Second + time.Second/2
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("asking how long %s stands: %w", key, err)
	}
	return max(left, 0), nil
}
