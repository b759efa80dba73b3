package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/request-migration/migrate/pkg/discovery"
)

const (
	// requestTimeout bounds one request. A request to a member that lost its
	// leader is lost with it, and the next is answered after the election, which
	// takes a second or so. Two of them fit into the 5 s within which the end of
	// an outage must have been dealt with.
	requestTimeout = 2 * time.Second
	// defaultPatience is how long Put and the first list of a watch repeat a
	// request that failed in passing.
	defaultPatience = 5 * time.Second
	// closeTimeout bounds what Close does with an etcd that is away. What it
	// leaves behind expires with its lease.
	closeTimeout = time.Second
)

// Store is a [discovery.Store] in an etcd cluster. Make one with [Open].
//
// A Store is safe for concurrent use.
type Store struct {
	cfg    Config
	log    *slog.Logger
	client *clientv3.Client
	keeper *keeper

	patience time.Duration // defaultPatience but in tests

	ctx          context.Context // ended by Close, with ErrClosed
	cancel       context.CancelCauseFunc
	clientCancel context.CancelFunc
	closing      sync.Once

	mu        sync.Mutex // guards what follows, and wg against being waited for too early
	closed    bool
	followers map[*follower]struct{} // of the watches that run
	wg        sync.WaitGroup         // calls under way, and goroutines
}

var _ interface {
	discovery.Store
	discovery.Expirer
} = (*Store)(nil)

func newStore(cfg Config, client *clientv3.Client, clientCancel context.CancelFunc) *Store {
	s := &Store{
		cfg: cfg, log: cfg.Logger, client: client, clientCancel: clientCancel,
		patience: defaultPatience, followers: make(map[*follower]struct{}),
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.keeper = newKeeper(s)
	return s
}

// Put implements [discovery.Store]. A ttl is rounded up to whole seconds, and
// to the shortest lease that the cluster grants. A failure that may pass, such
// as an election, is waited out for up to 5 seconds.
//
// If etcd may have taken the record although Put failed, the record goes with
// the next renewal of the lease; one with a ttl, after its ttl.
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	if err := discovery.CheckRecord(key, value, ttl); err != nil {
		return nil, err
	}
	ctx, leave, err := s.enter(ctx)
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
	ctx, leave, err := s.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	var expiry time.Duration
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
		expiry = time.Duration(lease.TTL)*time.Second + time.Second/2
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("asking how long %s stands: %w", key, err)
	}
	return max(expiry, 0), nil
}

// Close implements [discovery.Store]. It takes two seconds at most, even if
// etcd is away: then the error says which records it leaves there, until their
// lease ends.
func (s *Store) Close() error {
	var err error
	s.closing.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.cancel(discovery.ErrClosed)
		s.wg.Wait()

		err = s.keeper.close()
		s.clientCancel()
		if closeErr := s.client.Close(); err == nil {
			err = closeErr
		}
	})
	return err
}

// enter begins a call or a goroutine that Close ends and waits for. The context
// it returns ends with the given one, or with [discovery.ErrClosed] as cause;
// leave must be called at the end.
func (s *Store) enter(ctx context.Context) (_ context.Context, leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, discovery.ErrClosed
	}
	s.wg.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.ctx, func() { cancel(discovery.ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
		s.wg.Done()
	}, nil
}

// call makes one request, bounded in time.
func (s *Store) call(ctx context.Context, request func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, requestTimeout, noAnswer(requestTimeout))
	defer cancel()
	return diagnose(ctx, s.cfg, explain(ctx, request(ctx)))
}

// insist makes a request and repeats it while it fails in passing.
func (s *Store) insist(ctx context.Context, request func(context.Context) error) error {
	end := time.Now().Add(s.patience)
	var pause backoff
	for {
		err := s.call(ctx, request)
		if err == nil || !transient(err) || time.Now().After(end) || !pause.wait(ctx) {
			return err
		}
	}
}

// backoff paces the tries of one outage: from 100 ms, doubled each time, to 1 s
// at most, so that etcd's return is soon seen. The zero backoff is a first try.
type backoff struct{ last time.Duration }

// next returns how long to pause. Half of it is random, so that a fleet which
// lost etcd at one moment doesn't come back at one.
func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, 100*time.Millisecond), time.Second)
	return b.last/2 + rand.N(b.last/2)
}

// wait pauses, and reports false if ctx ended.
func (b *backoff) wait(ctx context.Context) bool {
	timer := time.NewTimer(b.next())
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
