package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/request-migration/migrate/pkg/internal/signal"

	"github.com/request-migration/migrate/pkg/discovery/internal/remote"
)

// A keeper renews the one lease of a store's kept records, and knows which records
// etcd must have under it.
type keeper struct {
	store    *Store
	grants   etcdserverpb.LeaseClient
	ttl      int64 // seconds
	interval time.Duration
	start    sync.Once
	kick     chan struct{} // has a token when a renewal is due at once
	granting chan struct{} // has a token while somebody asks for a lease

	// run alone uses these three.
	renewals  renewals
	prolonged clientv3.LeaseID // the last lease that was renewed
	unlooked  int              // renewals since the last check of all records

	mu      sync.Mutex // guards what follows
	lease   clientv3.LeaseID
	granted bool // etcd has the lease, as far as this store knows
	doubt   bool // etcd may not have the right records under it
	kept    map[string]*keptRecord
	putting map[string]*puts
	writing chan struct{} // closed at the end of the rewriting that is under way; nil if none is
}

func newKeeper(s *Store) *keeper {
	ttl := wholeSeconds(s.cfg.LeaseTTL)
	return &keeper{
		store:  s,
		grants: etcdserverpb.NewLeaseClient(s.client.ActiveConnection()),
		ttl:    ttl,
		// The lease survives two failed renewals. 3 s at most, so that a lost lease
		// is noticed within 5 s.
		interval: min(time.Duration(ttl)*time.Second/3, 3*time.Second),
		kick:     make(chan struct{}, 1),
		granting: make(chan struct{}, 1),
		lease:    newLeaseID(),
		kept:     make(map[string]*keptRecord),
		putting:  make(map[string]*puts),
	}
}

func wholeSeconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// newLeaseID returns a random id. The client chooses it, so that a grant whose answer
// was lost can be repeated without making a second lease.
func newLeaseID() clientv3.LeaseID { return clientv3.LeaseID(1 + rand.Int64N(1<<62)) }

// run renews the lease and checks the records under it until Close.
func (k *keeper) run() {
	ctx := k.store.life.Context
	defer k.renewals.drop()
	out := remote.Outage{Log: k.store.log, Store: "etcd"}
	for {
		pause := k.interval - rand.N(k.interval/10) // spreads the renewals of a fleet that was started at once
		if err := k.renew(ctx, &out); err != nil {
			if ctx.Err() != nil {
				return
			}
			k.doubts()
			pause = out.Failed(err, kindOf(err), true, 0)
		} else {
			out.Ended(k.stand())
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-k.kick:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// renewSoon asks for a renewal at once. It never blocks.
func (k *keeper) renewSoon() { signal.Send(k.kick) }

// lookEvery is how many renewals there are to one check of all records, so that a
// record that was deleted or replaced is noticed within about one and a half lease
// times. If the store has reason to doubt its records, it checks them with the next
// renewal.
const lookEvery = 5

// renew renews the lease, or takes a new one, and corrects the records under it.
func (k *keeper) renew(ctx context.Context, out *remote.Outage) error {
	// A lost lease is replaced at once, three times at most.
	for range 3 {
		id, err := k.prolong(ctx, out)
		if err == nil {
			err = k.look(ctx, id)
		}
		if !errors.Is(err, errLeaseLost) {
			return err
		}
		if err := k.store.leaseLost(ctx); !errors.Is(err, errLeaseLost) {
			return err
		}
		k.lost(id)
	}
	return errLeaseLost
}

// look checks the records under the lease: all of them every lookEvery renewals or
// when in doubt, and those that another owner has replaced each time, because their
// keys may be free again.
func (k *keeper) look(ctx context.Context, id clientv3.LeaseID) error {
	k.unlooked++
	k.mu.Lock()
	all := k.doubt || k.unlooked >= lookEvery
	var replaced []*keptRecord
	for _, r := range k.kept {
		if r.replaced {
			replaced = append(replaced, r)
		}
	}
	if !all && len(replaced) > 0 {
		defer k.beginWriting()()
	}
	k.doubt = k.doubt && !all
	k.mu.Unlock()
	if !all {
		return k.rewrite(ctx, id, replaced)
	}
	if err := k.restore(ctx, id); err != nil {
		k.doubts()
		return err
	}
	k.unlooked = 0
	return nil
}

// stand reports whether any kept record stands, as far as this store knows.
func (k *keeper) stand() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.kept {
		if !r.replaced {
			return true
		}
	}
	return false
}

// doubts makes the next renewal check all records.
func (k *keeper) doubts() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.doubt = true
}

// prolong takes a lease if there is none, and renews it.
func (k *keeper) prolong(ctx context.Context, out *remote.Outage) (clientv3.LeaseID, error) {
	var id clientv3.LeaseID
	err := k.store.call(ctx, func(ctx context.Context) (err error) {
		id, err = k.grant(ctx)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("taking a lease: %w", err)
	}
	if k.prolonged != 0 && k.prolonged != id {
		out.Lost(kindOf(errLeaseLost), "lease lost, registering again", "etcd has lost the lease, registering again") // this loop or a Put has noticed it
	}
	k.prolonged = id
	seconds, err := k.renewals.renew(ctx, k, id)
	if err != nil {
		return 0, fmt.Errorf("renewing the lease: %w", err)
	}
	if seconds <= 0 {
		return id, errLeaseLost
	}
	return id, nil
}

// grant asks etcd for the lease unless etcd is known to have it.
func (k *keeper) grant(ctx context.Context) (clientv3.LeaseID, error) {
	select {
	case k.granting <- struct{}{}: // one asks, the others then find it granted
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

// lost notes that etcd has lost the lease. The next one has another id, because etcd
// may be about to revoke the old id once more.
func (k *keeper) lost(id clientv3.LeaseID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lease == id && k.granted {
		k.lease, k.granted, k.doubt = newLeaseID(), false, true
	}
}

// leaseLost returns why a lease was not found: errLeaseLost, or an error that says
// that the endpoints belong to different clusters.
func (s *Store) leaseLost(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := oneCluster(ctx, s.client, s.cfg.Endpoints); err != nil {
		return err
	}
	return errLeaseLost
}

// close revokes the lease, and with it every record, within closeTimeout.
func (k *keeper) close() error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), closeTimeout, remote.NoAnswer(closeTimeout))
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
		return nil // there are no records
	}
	if err = explain(ctx, err); err != nil {
		return fmt.Errorf("releasing the records in etcd (they expire within %ds): %w", k.ttl, err)
	}
	return nil
}

// renewals is the stream that renews a lease. It stays open, because etcd checks the
// password for each new stream, which is expensive. The zero renewals has no stream
// yet.
type renewals struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	stream etcdserverpb.Lease_LeaseKeepAliveClient
}

// renew renews the lease and returns how many seconds it has now: 0 if there is no
// such lease.
func (r *renewals) renew(ctx context.Context, k *keeper, id clientv3.LeaseID) (seconds int64, err error) {
	if r.cancel == nil {
		// A member without a leader then ends the stream, and another is tried.
		r.ctx, r.cancel = context.WithCancelCause(clientv3.WithRequireLeader(ctx))
	}
	// The shorter the lease, the sooner a second try is needed.
	timeout := max(k.interval, 500*time.Millisecond)
	timer := time.AfterFunc(timeout, func() { r.cancel(remote.NoAnswer(timeout)) })
	resp, err := r.exchange(k.grants, id)
	timer.Stop()
	if err != nil {
		err = explain(r.ctx, err)
		r.drop()
		return 0, diagnose(ctx, k.store.cfg, err)
	}
	return resp.TTL, nil
}

func (r *renewals) exchange(client etcdserverpb.LeaseClient, id clientv3.LeaseID) (*etcdserverpb.LeaseKeepAliveResponse, error) {
	if r.stream == nil {
		stream, err := client.LeaseKeepAlive(r.ctx)
		if err != nil {
			return nil, err
		}
		r.stream = stream
	}
	err := r.stream.Send(&etcdserverpb.LeaseKeepAliveRequest{ID: int64(id)})
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return r.stream.Recv() // also says why the stream has ended
}

// drop closes the stream. The next renewal opens another, perhaps to another member.
func (r *renewals) drop() {
	if r.cancel != nil {
		r.cancel(nil)
	}
	*r = renewals{}
}
