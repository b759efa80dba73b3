package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// batchRecords is how many records are written in one transaction; etcd
	// allows 128 operations.
	batchRecords = 100
	// batchBytes bounds their values together; etcd allows 1.5 MiB, and one
	// record has 1 MiB at the most.
	batchBytes = 512 << 10
)

// restore compares what stands under the lease with what should: it writes what
// is missing, and removes what was released, or put in vain, while etcd could
// not be reached.
func (k *keeper) restore(ctx context.Context, id clientv3.LeaseID) error {
	var attached *clientv3.LeaseTimeToLiveResponse
	err := k.store.call(ctx, func(ctx context.Context) (err error) {
		attached, err = k.store.client.TimeToLive(ctx, id, clientv3.WithAttachedKeys())
		return err
	})
	if err != nil {
		return fmt.Errorf("listing the records under the lease: %w", err)
	}
	if attached.TTL < 0 {
		return errLeaseLost
	}
	missing, surplus, done := k.compare(attached.Keys)
	defer done()
	for len(missing) > 0 {
		n := batch(missing)
		if err := k.rewrite(ctx, id, missing[:n]); err != nil {
			return fmt.Errorf("registering again: %w", err)
		}
		missing = missing[n:]
	}
	for _, key := range surplus {
		// A Put of the same key may be on its way; it has a later revision.
		old := clientv3.Compare(clientv3.ModRevision(key), "<", attached.Revision+1)
		err := k.store.call(ctx, func(ctx context.Context) error { return k.remove(ctx, key, old) })
		if err != nil {
			return fmt.Errorf("removing a released record: %w", err)
		}
		k.store.log.Debug("released", "key", key)
	}
	return nil
}

// compare returns the kept records that are not attached, and the attached keys
// that nobody keeps. Until done is called, Release waits.
func (k *keeper) compare(attached [][]byte) (missing []*keptRecord, surplus []string, done func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	absent := maps.Clone(k.kept)
	for _, key := range attached {
		key := string(key)
		delete(absent, key)
		if k.kept[key] == nil && k.putting[key] == nil {
			surplus = append(surplus, key)
		}
	}
	writing := make(chan struct{})
	k.writing = writing
	return slices.Collect(maps.Values(absent)), surplus, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.writing = nil
		close(writing)
	}
}

// batch returns how many of the records go into one transaction.
func batch(records []*keptRecord) int {
	size := 0
	for i, r := range records {
		size += len(r.key) + len(r.value)
		if i == batchRecords || i > 0 && size > batchBytes {
			return i
		}
	}
	return len(records)
}

// rewrite puts each record whose key is gone. A key that is there under another
// lease was put by somebody else, and is no longer kept.
func (k *keeper) rewrite(ctx context.Context, id clientv3.LeaseID, records []*keptRecord) error {
	ops := make([]clientv3.Op, len(records))
	for i, r := range records {
		ops[i] = clientv3.OpTxn(
			[]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(r.key), "=", 0)},
			[]clientv3.Op{clientv3.OpPut(r.key, string(r.value), clientv3.WithLease(id))},
			[]clientv3.Op{clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.LeaseValue(r.key), "=", id)}, nil, nil)},
		)
	}
	var resp *clientv3.TxnResponse
	err := k.store.call(ctx, func(ctx context.Context) (err error) {
		resp, err = k.store.client.Txn(ctx).Then(ops...).Commit()
		return err
	})
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return errLeaseLost
	}
	if err != nil {
		return err
	}
	for i, r := range records {
		one := resp.Responses[i].GetResponseTxn()
		switch {
		case one.Succeeded:
			k.store.log.Debug("registered again", "key", r.key)
		case !one.Responses[0].GetResponseTxn().Succeeded:
			k.superseded(r)
		}
	}
	return nil
}

// superseded takes note that somebody else has put the record's key.
func (k *keeper) superseded(r *keptRecord) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kept[r.key] == r {
		delete(k.kept, r.key)
		k.store.log.Debug("replaced by another owner", "key", r.key)
	}
}
