package kubernetes

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/internal/remote"
)

const (
	// requestTimeout bounds one request. The API server aims at a second for nearly
	// all; three tries fit into a lease.
	requestTimeout = 3 * time.Second
	// defaultPatience is how long Put and the first list of a watch repeat a
	// request that failed for a passing reason.
	defaultPatience = 5 * time.Second
	// closeTimeout bounds how long Close waits for an API server that is away. Records
	// that it can't remove expire with their lease.
	closeTimeout = time.Second
)

// A Store is a [discovery.Store] in a namespace of a Kubernetes cluster. Make one with
// [Open].
//
// A Store is safe for concurrent use.
type Store struct {
	cfg       Config
	log       *slog.Logger
	access    *access
	clock     *clock
	namespace string
	identity  string // the holder of this store's Leases; no other store has it
	keeper    *keeper
	dead      *deadList
	sweeper   sync.Once

	patience time.Duration // defaultPatience; tests set it

	life *remote.Life
}

var _ interface {
	discovery.Store
	discovery.Expirer
} = (*Store)(nil)

func newStore(cfg Config, access *access) *Store {
	host := cfg.PodName
	if host == "" {
		host, _ = os.Hostname() // for people; without it the rest will do
	}
	s := &Store{
		cfg: cfg, log: cfg.Logger, access: access, clock: access.clock, namespace: access.namespace,
		identity: host + "_" + randomID(), dead: newDeadList(), life: remote.NewLife(), patience: defaultPatience,
	}
	s.keeper = newKeeper(s)
	return s
}

// randomID returns 16 random hex digits.
func randomID() string {
	var b [8]byte
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return hex.EncodeToString(b[:])
}

// Put implements [discovery.Store], for values of up to [MaxValue] bytes. If a request
// fails for a passing reason, Put repeats it for up to 5 seconds.
//
// The API server may have the record although Put failed. It then expires.
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	if err := discovery.CheckRecord(key, value, ttl); err != nil {
		return nil, err
	}
	if len(value) > MaxValue {
		return nil, fmt.Errorf("value of %s has %d bytes, more than the %d that an annotation holds", key, len(value), MaxValue)
	}
	ctx, leave, err := s.life.Enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	var lease discovery.Lease
	if ttl > 0 {
		lease, err = s.keeper.putBrief(ctx, key, value, min(ttl, maxTTL))
	} else {
		lease, err = s.keeper.put(ctx, key, value)
	}
	if err != nil {
		return nil, fmt.Errorf("putting %s: %w", key, err)
	}
	s.log.Debug("registered", "key", key, "ttl", ttl)
	return lease, nil
}

// Expiry implements [discovery.Expirer], to a second: it is 0 for a Lease without a
// duration. It takes one request for a record with a ttl, and two for any other, each
// bounded by 3 s.
func (s *Store) Expiry(ctx context.Context, key string) (time.Duration, error) {
	ctx, leave, err := s.life.Enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	brief, err := s.find(ctx, briefName(key))
	if err == nil {
		if b, ok := brief.briefs[key]; ok {
			if left := b.Until.Sub(s.clock.now()); left > 0 {
				return min(left, b.ttl()), nil
			}
		}
		var o object
		if o, err = s.find(ctx, keptName(key)); err == nil {
			if o.kept == nil || o.kept.lifetime == 0 {
				return 0, nil
			}
			left := o.kept.renewed.Add(o.kept.lifetime).Sub(s.clock.now())
			return min(max(left, 0), o.kept.lifetime), nil
		}
	}
	return 0, fmt.Errorf("asking how long %s stands: %w", key, err)
}

// find gets an object. It is empty if there is none.
func (s *Store) find(ctx context.Context, name string) (o object, err error) {
	err = s.call(ctx, "get", func(ctx context.Context) (err error) {
		o, err = s.access.get(ctx, name)
		return err
	})
	if apierrors.IsNotFound(err) {
		return object{name: name}, nil
	}
	return o, err
}

// Close implements [discovery.Store]. It takes 2 seconds at most. If the API server is
// away, the error says when the records that it leaves there expire.
func (s *Store) Close() error {
	var err error
	s.life.Close(func() {
		err = s.keeper.close()
		s.access.close()
	})
	return err
}

// call makes one request within requestTimeout. The verb is what it needs permission for.
func (s *Store) call(ctx context.Context, verb string, request func(context.Context) error) error {
	return s.callWithin(ctx, requestTimeout, verb, request)
}

func (s *Store) callWithin(ctx context.Context, timeout time.Duration, verb string, request func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, remote.NoAnswer(timeout))
	defer cancel()
	err := s.explain(ctx, verb, request(ctx))
	if _, silent := err.(remote.NoAnswer); silent && s.access.silence() >= timeout { //nolint:errorlint // the cause itself, not what wraps one
		s.access.renewConnections()
	}
	return err
}

// insist makes a request and repeats it while it fails for a passing reason, for
// s.patience at most.
func (s *Store) insist(ctx context.Context, request func(context.Context) error) error {
	end := time.Now().Add(s.patience)
	var pause remote.Backoff
	for {
		err := request(ctx)
		if err == nil || !transient(err) || time.Now().After(end) || !pause.Wait(ctx, askedBy(err)) {
			return err
		}
	}
}
