package storetest_test

import (
	"bytes"
	"cmp"
	"context"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/storetest"
)

// A table is a database's, with a row a record: what a store of one's own may be built on.
type table struct {
	mu   sync.Mutex
	rows map[string]row
}

type row struct {
	value []byte
	owner *tableStore // nil for one with a ttl
	until time.Time
}

const (
	tableLease = 300 * time.Millisecond
	tablePoll  = 10 * time.Millisecond
)

// tableStore is a [discovery.Store] over a table, as it can be written in an afternoon: it
// renews its rows, and its readers look at the table again and again.
type tableStore struct {
	t       *table
	closing chan struct{}
	close   func()
	work    sync.WaitGroup

	mu   sync.Mutex
	kept map[string]*tableLeaseOf
}

// tableLeaseOf is the lease of one Put.
type tableLeaseOf struct {
	s     *tableStore
	key   string
	value []byte
	row   row // with a ttl
}

func openTable(t *table) *tableStore {
	s := &tableStore{t: t, closing: make(chan struct{}), kept: map[string]*tableLeaseOf{}}
	s.close = sync.OnceFunc(func() { close(s.closing) })
	s.work.Go(func() {
		for s.sleep(tableLease / 3) {
			s.renew()
		}
	})
	return s
}

func (s *tableStore) closed() bool { return !s.sleep(0) }

// sleep returns false if the store was closed.
func (s *tableStore) sleep(d time.Duration) bool {
	select {
	case <-s.closing:
		return false
	default:
	}
	if d == 0 {
		return true
	}
	select {
	case <-s.closing:
		return false
	case <-time.After(d):
		return true
	}
}

// renew renews the rows that this store keeps, and puts those again that nobody else has.
func (s *tableStore) renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	for key, l := range s.kept {
		if r, ok := s.t.rows[key]; !ok || r.owner == s || !r.until.After(time.Now()) {
			s.t.rows[key] = row{l.value, s, time.Now().Add(tableLease)}
		}
	}
}

func (s *tableStore) Put(ctx context.Context, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	if err := discovery.CheckRecord(key, value, ttl); err != nil {
		return nil, err
	}
	if s.closed() {
		return nil, discovery.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	l := &tableLeaseOf{s: s, key: key, value: bytes.Clone(value)}
	delete(s.kept, key)
	l.row = row{l.value, nil, time.Now().Add(ttl)}
	if ttl == 0 {
		s.kept[key] = l
		l.row = row{l.value, s, time.Now().Add(tableLease)}
	}
	s.t.rows[key] = l.row
	return l, nil
}

func (l *tableLeaseOf) Release(context.Context) error {
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	r := s.t.rows[l.key]
	switch {
	case l.row.owner == nil && r.owner == nil && r.until.Equal(l.row.until),
		s.kept[l.key] == l && r.owner == s:
		delete(s.t.rows, l.key)
	}
	if s.kept[l.key] == l {
		delete(s.kept, l.key)
	}
	return nil
}

func (s *tableStore) Watch(ctx context.Context, prefix string) iter.Seq2[discovery.Snapshot, error] {
	return func(yield func(discovery.Snapshot, error) bool) {
		err := discovery.CheckPrefix(prefix)
		var last discovery.Snapshot
		for first := true; err == nil; first = false {
			switch {
			case ctx.Err() != nil:
				err = ctx.Err()
			case s.closed(), !first && !s.sleep(tablePoll):
				err = discovery.ErrClosed
			default:
				if snap := s.t.under(prefix); first || !snap.Equal(last) {
					if last = snap; !yield(snap, nil) {
						return
					}
				}
			}
		}
		yield(discovery.Snapshot{}, err)
	}
}

// under returns the rows under a prefix whose time is not over.
func (t *table) under(prefix string) discovery.Snapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	var snap discovery.Snapshot
	for key, r := range t.rows {
		if strings.HasPrefix(key, prefix) && r.until.After(time.Now()) {
			snap.Records = append(snap.Records, discovery.Record{Key: key, Value: r.value})
		}
	}
	slices.SortFunc(snap.Records, func(a, b discovery.Record) int { return cmp.Compare(a.Key, b.Key) })
	return snap
}

func (s *tableStore) Close() error {
	s.close()
	s.work.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	for key := range s.kept {
		if s.t.rows[key].owner == s {
			delete(s.t.rows, key)
		}
	}
	clear(s.kept)
	return nil
}

// TestOwnStore is how a store of one's own is tested. It is not parallel, because the suite
// counts goroutines.
func TestOwnStore(t *testing.T) {
	var current *table
	storetest.Run(t, storetest.Backend{
		Open: func(testing.TB) discovery.Store {
			current = &table{rows: map[string]row{}}
			return openTable(current)
		},
		Join: func(testing.TB, discovery.Store) discovery.Store { return openTable(current) },
		Kill: func(_ testing.TB, s discovery.Store) {
			killed := s.(*tableStore)
			killed.mu.Lock()
			defer killed.mu.Unlock()
			clear(killed.kept) // nobody renews them any more
		},
		LeaseTime: 2 * tableLease, TTL: 300 * time.Millisecond,
	})
}
