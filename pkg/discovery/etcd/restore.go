package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/request-migration/migrate/pkg/discovery/internal/owner"
)

const (
	// batchRecords is how many records go into one transaction. etcd allows 128
	// operations.
	batchRecords = 100
	// batchBytes bounds the records of one transaction together, unless it has only
	// one. etcd allows 1.5 MiB, and a record has 1 MiB at most.
	batchBytes = 512 << 10
)

// restore compares the records under the lease with the kept ones. It writes those
// that are missing, and removes those whose Release, or failed Put, did not reach
// etcd.
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
	if err := k.rewrite(ctx, id, missing); err != nil {
		return err
	}
	for _, key := range surplus {
		err := k.store.call(ctx, func(ctx context.Context) error {
			_, err := k.store.client.Txn(ctx).If(
				clientv3.Compare(clientv3.LeaseValue(key), "=", id),
				// Not what a Put has written since: that has a later revision.
				clientv3.Compare(clientv3.ModRevision(key), "<", attached.Revision+1),
			).Then(clientv3.OpDelete(key)).Commit()
			return err
		})
		if err != nil {
			return fmt.Errorf("removing a released record: %w", err)
		}
		k.store.log.Debug("released", "key", key)
	}
	return nil
}

// compare returns the kept records that are not attached to the lease, and the
// attached keys that are not kept. Release waits until done is called.
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
	return slices.Collect(maps.Values(absent)), surplus, k.beginWriting()
}

// beginWriting makes Release wait until done is called. k.mu is held.
func (k *keeper) beginWriting() (done func()) {
	writing := make(chan struct{})
	k.writing = writing
	return func() {
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

// rewrite puts the records whose keys are free or have copies without a lease. It
// leaves a key that another owner has put since.
func (k *keeper) rewrite(ctx context.Context, id clientv3.LeaseID, records []*keptRecord) error {
	for len(records) > 0 {
		n := batch(records)
		free := func(r *keptRecord) clientv3.Cmp { return clientv3.Compare(clientv3.CreateRevision(r.key), "=", 0) }
		found, err := k.putIf(ctx, id, records[:n], free)
		if err != nil {
			return fmt.Errorf("registering again: %w", err)
		}
		copies := make([]*keptRecord, 0, len(found))
		for r, kv := range found {
			if r.owns(kv) {
				copies = append(copies, r)
			}
		}
		same := func(r *keptRecord) clientv3.Cmp {
			return clientv3.Compare(clientv3.ModRevision(r.key), "=", found[r].ModRevision)
		}
		changed, err := k.putIf(ctx, id, copies, same)
		if err != nil {
			return fmt.Errorf("registering again: %w", err)
		}
		if len(changed) > 0 {
			k.doubts()
		}
		for r, kv := range found {
			if !r.owns(kv) {
				k.superseded(r, kv)
			}
		}
		records = records[n:]
	}
	return nil
}

// putIf puts the records whose condition holds, in one transaction, and returns what
// it found under the keys of the others.
func (k *keeper) putIf(ctx context.Context, id clientv3.LeaseID, records []*keptRecord, condition func(*keptRecord) clientv3.Cmp) (map[*keptRecord]*mvccpb.KeyValue, error) {
	if len(records) == 0 {
		return nil, nil
	}
	ops := make([]clientv3.Op, len(records))
	for i, r := range records {
		ops[i] = clientv3.OpTxn(
			[]clientv3.Cmp{condition(r)},
			[]clientv3.Op{clientv3.OpPut(r.key, string(r.value), clientv3.WithLease(id))},
			[]clientv3.Op{clientv3.OpGet(r.key)},
		)
	}
	var resp *clientv3.TxnResponse
	err := k.store.call(ctx, func(ctx context.Context) (err error) {
		resp, err = k.store.client.Txn(ctx).Then(ops...).Commit()
		return err
	})
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil, errLeaseLost
	}
	if err != nil {
		return nil, err
	}
	found := make(map[*keptRecord]*mvccpb.KeyValue)
	for i, r := range records {
		one := resp.Responses[i].GetResponseTxn()
		if one.Succeeded {
			k.registered(r)
			continue
		}
		for _, kv := range one.Responses[0].GetResponseRange().Kvs {
			found[r] = kv
		}
	}
	return found, nil
}

// registered notes that a record was put again.
func (k *keeper) registered(r *keptRecord) {
	k.mu.Lock()
	returned := r.replaced
	r.replaced = false
	k.mu.Unlock()
	level := slog.LevelDebug
	if returned {
		level = slog.LevelInfo // it ends what a warning began
	}
	k.store.log.Log(context.Background(), level, "registered again", "key", r.key)
}

// superseded notes what was found in place of a record.
func (k *keeper) superseded(r *keptRecord, found *mvccpb.KeyValue) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kept[r.key] != r || r.replaced || clientv3.LeaseID(found.Lease) == k.lease {
		return
	}
	r.replaced = true
	if owner.Same(r.value, found.Value) {
		k.store.log.Debug("a copy under another lease stands in the record's place", "key", r.key)
		return
	}
	k.store.log.Warn("replaced by another owner, registering again when the key is free", "key", r.key)
}

// removeStrays removes the kept records that are in etcd without the lease.
func (k *keeper) removeStrays(ctx context.Context, id clientv3.LeaseID) error {
	attached, err := k.store.client.TimeToLive(ctx, id, clientv3.WithAttachedKeys())
	if err != nil {
		return err
	}
	missing, _, done := k.compare(attached.Keys)
	defer done()
	for _, r := range missing {
		if err := k.remove(ctx, r); err != nil {
			return err
		}
	}
	return nil
}
