package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/internal/owner"
)

// keeper holds the one lease of a store's kept records, and knows what etcd
// must have under it.
type keeper struct {
	store    *Store
	grants   etcdserverpb.LeaseClient
	ttl      int64 // seconds
	interval time.Duration
	start    sync.Once
	kick     chan struct{} // asks for a renewal at once
	granting chan struct{} // has a token while a lease is being asked for

	renewals  renewals         // the loop's alone
	prolonged clientv3.LeaseID // likewise: the lease it saw last
	unlooked  int              // likewise: renewals since it looked what stands

	mu      sync.Mutex // guards what follows
	lease   clientv3.LeaseID
	granted bool // etcd knows the lease, as far as anyone here has heard
	doubt   bool // what stands under it may not be what should
	kept    map[string]*keptRecord
	putting map[string]*puts
	writing chan struct{} // closed when the rewriting under way has ended; nil if none is
}

// keptRecord is a kept record and its [discovery.Lease].
type keptRecord struct {
	keeper   *keeper
	key      string
	value    []byte
	replaced bool // the key is another owner's for now; guarded by keeper.mu
}

// puts are the Puts of one key that are under way at the same time.
type puts struct {
	n   int
	rev int64 // of the latest of them that has ended
}

func newKeeper(s *Store) *keeper {
	ttl := wholeSeconds(s.cfg.LeaseTTL)
	return &keeper{
		store:  s,
		grants: etcdserverpb.NewLeaseClient(s.client.ActiveConnection()),
		ttl:    ttl,
		// Two renewals may fail before the lease is over. Three seconds at the
		// most, so that a lease lost in whatever way is noticed within five.
		interval: min(time.Duration(ttl)*time.Second/3, 3*time.Second),
		kick:     make(chan struct{}, 1),
		granting: make(chan struct{}, 1),
		lease:    newLeaseID(),
		kept:     make(map[string]*keptRecord),
		putting:  make(map[string]*puts),
	}
}

func wholeSeconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// newLeaseID chooses a lease's id here, so that a grant whose answer was lost
// can be asked for again and is still the one lease.
func newLeaseID() clientv3.LeaseID { return clientv3.LeaseID(1 + rand.Int64N(1<<62)) }

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

// doubts makes the next renewal look at what stands under the lease.
func (k *keeper) doubts() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.doubt = true
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

// grant makes sure, as far as can be known, that etcd has the lease.
func (k *keeper) grant(ctx context.Context) (clientv3.LeaseID, error) {
	select {
	case k.granting <- struct{}{}: // the others then find it granted
		defer func() { <-k.granting }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	k.mu.Lock()
	id, granted := k.lease, k.granted
	k.mu.Unlock()
	if granted {
		return id, nil
	}
	_, err := k.grants.LeaseGrant(ctx, &etcdserverpb.LeaseGrantRequest{ID: int64(id), TTL: k.ttl})
	if err != nil && !errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseExist) {
		return 0, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.granted = true
	return id, nil
}

// lost takes note that etcd has not got the lease. The next one has another id:
// etcd may still be about to revoke the old one a second time.
func (k *keeper) lost(id clientv3.LeaseID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lease == id && k.granted {
		k.lease, k.granted, k.doubt = newLeaseID(), false, true
	}
}

// close ends the lease and every record under it, in bounded time.
func (k *keeper) close() error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), closeTimeout, noAnswer(closeTimeout))
	defer cancel()
	k.mu.Lock()
	id, granted := k.lease, k.granted
	empty := len(k.kept) == 0 && !k.doubt
	k.mu.Unlock()
	if !granted {
		return nil
	}
	var err error
	if !empty {
		err = k.removeStrays(ctx, id)
	}
	if err == nil {
		_, err = k.store.client.Revoke(ctx, id)
	}
	if empty || errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil // nothing is left behind
	}
	if err = explain(ctx, err); err != nil {
		return fmt.Errorf("releasing the records in etcd (they expire within %ds): %w", k.ttl, err)
	}
	return nil
}

// removeStrays removes the kept records that are in etcd, but not under the lease.
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
