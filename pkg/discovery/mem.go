package discovery

import (
	"bytes"
	"cmp"
	"context"
	"iter"
	"slices"
	"sync"
	"time"
)

// A Mem is the [Store] of one process: owners and readers must share one Mem. It has
// no goroutines. Puts and watches drop the records whose ttl has passed.
//
// The zero Mem is an empty store. A Mem is safe for concurrent use, and must not be copied.
type Mem struct {
	once sync.Once     // guards the making of what follows
	done chan struct{} // closed by Close

	mu       sync.Mutex // guards what follows
	closed   bool
	records  map[string]*memLease
	expiring map[string]*memLease // those of records that have a ttl
	sorted   []Record             // the records, sorted; nil when they have changed since
	changed  chan struct{}        // closed, and made anew, when records change
}

var _ interface {
	Store
	Expirer
} = (*Mem)(nil)

// ready makes what a zero Mem lacks.
func (m *Mem) ready() {
	m.once.Do(func() {
		m.done = make(chan struct{})
		m.records = make(map[string]*memLease)
		m.expiring = make(map[string]*memLease)
		m.changed = make(chan struct{})
	})
}

// A memLease is a record and its lease. It does not change once it is in a Mem.
type memLease struct {
	mem   *Mem
	key   string
	value []byte
	end   time.Time // zero without a ttl
}

// Put implements [Store].
func (m *Mem) Put(ctx context.Context, key string, value []byte, ttl time.Duration) (Lease, error) {
	if err := CheckRecord(key, value, ttl); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.ready()
	l := &memLease{mem: m, key: key, value: bytes.Clone(value)}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	now := time.Now()
	m.expire(now) // so that a store that nobody watches doesn't grow
	m.records[key] = l
	delete(m.expiring, key)
	if ttl > 0 {
		l.end = now.Add(ttl)
		m.expiring[key] = l
	}
	m.wake()
	return l, nil
}

// Release implements [Lease].
func (l *memLease) Release(context.Context) error {
	m := l.mem
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.records[l.key] == l { // else the key was put again since
		delete(m.records, l.key)
		delete(m.expiring, l.key)
		m.wake()
	}
	return nil
}

// Watch implements [Store].
func (m *Mem) Watch(ctx context.Context, prefix string) iter.Seq2[Snapshot, error] {
	return func(yield func(Snapshot, error) bool) {
		if err := CheckPrefix(prefix); err != nil {
			yield(Snapshot{}, err)
			return
		}
		m.ready()
		timer := time.NewTimer(time.Hour)
		defer timer.Stop()
		var last Snapshot
		for first := true; ; first = false {
			if err := m.ended(ctx); err != nil {
				yield(Snapshot{}, err)
				return
			}
			all, changed, next := m.look()
			if snap := all.Under(prefix); first || !snap.Equal(last) {
				if !yield(snap, nil) {
					return
				}
				last = snap
			}
			timer.Reset(next)
			select {
			case <-ctx.Done():
			case <-m.done:
			case <-changed:
			case <-timer.C:
			}
		}
	}
}

func (m *Mem) ended(ctx context.Context) error {
	select {
	case <-m.done:
		return ErrClosed
	default:
		return ctx.Err()
	}
}

// look returns all records that stand now, a channel that is closed when they change,
// and the time until the first of them expires.
func (m *Mem) look() (all Snapshot, changed <-chan struct{}, next time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	next = m.expire(now)
	if m.sorted == nil {
		m.sorted = make([]Record, 0, len(m.records))
		for key, l := range m.records {
			m.sorted = append(m.sorted, Record{Key: key, Value: l.value})
		}
		slices.SortFunc(m.sorted, func(a, b Record) int { return cmp.Compare(a.Key, b.Key) })
	}
	return Snapshot{Records: m.sorted}, m.changed, next
}

// expire drops the records whose ttl has passed, and returns the time until the next
// one expires. m.mu is held.
func (m *Mem) expire(now time.Time) time.Duration {
	next := time.Hour // if nothing expires sooner
	expired := false
	for key, l := range m.expiring {
		if d := l.end.Sub(now); d > 0 {
			next = min(next, d)
			continue
		}
		delete(m.expiring, key)
		delete(m.records, key)
		expired = true
	}
	if expired {
		m.wake()
	}
	return next
}

// wake makes every watch look again. m.mu is held.
func (m *Mem) wake() {
	m.sorted = nil
	close(m.changed)
	m.changed = make(chan struct{})
}

// Close implements [Store]. Records that were put with a ttl are gone too, because
// nobody can read a closed Mem.
func (m *Mem) Close() error {
	m.ready()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.closed = true
		clear(m.records)
		clear(m.expiring)
		close(m.done)
	}
	return nil
}

// Expiry implements [Expirer]: it is 0 for a record that was put without a ttl.
func (m *Mem) Expiry(_ context.Context, key string) (time.Duration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.expiring[key]
	if l == nil {
		return 0, nil
	}
	return max(time.Until(l.end), 0), nil
}
