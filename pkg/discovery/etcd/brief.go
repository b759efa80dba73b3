package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

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
		// A lease whose answer is lost expires unused.
		grant, err := k.store.client.Grant(ctx, wholeSeconds(ttl))
		if err != nil {
			return err
		}
		resp, err := k.store.client.Put(ctx, key, string(value), clientv3.WithLease(grant.ID))
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return errLeaseLost // it took etcd longer than ttl
		}
		if err == nil {
			r.lease, rev = grant.ID, resp.Header.Revision
		}
		return err
	})
	k.end(key, rev, nil, err)
	if err != nil {
		return nil, err
	}
	return r, nil
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
