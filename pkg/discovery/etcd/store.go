package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/internal/remote"
)

const (
	// requestTimeout bounds one request. A member without a leader drops requests;
	// the next one is answered after the election, which takes about a second. Two
	// requests fit into the 5 s in which a store must recover from an outage.
	requestTimeout = 2 * time.Second
	// defaultPatience is how long Put and the first list of a watch repeat a
	// request that failed for a passing reason.
	defaultPatience = 5 * time.Second
	// closeTimeout bounds how long Close waits for an etcd that is away. Records
	// that it can't remove expire with their lease.
	closeTimeout = time.Second
)

// A Store is a [discovery.Store] in an etcd cluster. Make one with [Open].
//
// A Store is safe for concurrent use.
type Store struct {
	cfg    Config
	log    *slog.Logger
	client *clientv3.Client
	keeper *keeper

	patience time.Duration // defaultPatience; tests set it

	life         *remote.Life
	clientCancel context.CancelFunc

	mu        sync.Mutex             // guards what follows
	followers map[*follower]struct{} // of the watches that run
}

var _ interface {
	discovery.Store
	discovery.Expirer
} = (*Store)(nil)

func newStore(cfg Config, client *clientv3.Client, clientCancel context.CancelFunc) *Store {
	s := &Store{
		cfg: cfg, log: cfg.Logger, client: client, clientCancel: clientCancel,
		life: remote.NewLife(), patience: defaultPatience, followers: make(map[*follower]struct{}),
	}
	s.keeper = newKeeper(s)
	return s
}

// Put implements [discovery.Store]. A ttl is rounded up to whole seconds, and to the
// shortest lease that the cluster grants. If a request fails for a passing reason,
// such as an election, Put repeats it for up to 5 seconds.
//
// etcd may have the record although Put failed. The next renewal of the lease then
// removes it; a record with a ttl expires.
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	if err := discovery.CheckRecord(key, value, ttl); err != nil {
		return nil, err
	}
	ctx, leave, err := s.life.Enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	put := s.keeper.put
	if ttl > 0 {
		put = s.keeper.putBrief
	}
	lease, err := put(ctx, key, value, ttl)
	if err != nil {
		return nil, fmt.Errorf("putting %s: %w", key, err)
	}
	s.log.Debug("registered", "key", key, "ttl", ttl)
	return lease, nil
}

// Expiry implements [discovery.Expirer], to half a second: it is 0 for a record
// without a lease. It takes one request for a record that a watch of this store
// has, and two for any other. A request is bounded by 2 s.
func (s *Store) Expiry(ctx context.Context, key string) (time.Duration, error) {
	ctx, leave, err := s.life.Enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	var expiry time.Duration
	err = s.call(ctx, func(ctx context.Context) error {
		id, known := s.leaseOf(key)
		if !known {
			record, err := s.client.Get(ctx, key) // keys alone would come without leases
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
		// etcd rounds down, and returns -1 for a lease that has expired meanwhile.
		expiry = time.Duration(lease.TTL)*time.Second + time.Second/2
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("asking how long %s stands: %w", key, err)
	}
	return max(expiry, 0), nil
}

// Close implements [discovery.Store]. It takes 2 seconds at most. If etcd is away,
// the error says when the records that it leaves there expire.
func (s *Store) Close() error {
	var err error
	s.life.Close(func() {
		err = s.keeper.close()
		s.clientCancel()
		if closeErr := s.client.Close(); err == nil {
			err = closeErr
		}
	})
	return err
}

// call makes one request within requestTimeout.
func (s *Store) call(ctx context.Context, request func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, requestTimeout, remote.NoAnswer(requestTimeout))
	defer cancel()
	return diagnose(ctx, s.cfg, explain(ctx, request(ctx)))
}

// insist makes a request and repeats it while it fails for a passing reason, for
// s.patience at most.
func (s *Store) insist(ctx context.Context, request func(context.Context) error) error {
	end := time.Now().Add(s.patience)
	var pause remote.Backoff
	for {
		err := s.call(ctx, request)
		if err == nil || !transient(err) || time.Now().After(end) || !pause.Wait(ctx, 0) {
			return err
		}
	}
}
