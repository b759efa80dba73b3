package etcd

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/internal/remote"
	"github.com/request-migration/migrate/pkg/internal/signal"
)

// A view is the set of one watch. A follower changes it and a reader takes it, each at
// its own pace. The changes collect until the reader takes the set, and then cost one
// pass over it together.
type view struct {
	changed chan struct{} // has a token when there is a new set to take

	mu      sync.Mutex         // guards what follows
	records []discovery.Record // sorted; readers share it, so it never changes
	leases  []int64            // of the records
	pending map[string]change  // changes that are not in the records yet
	rev     int64              // etcd's; events up to it are in the records
	known   bool               // a first set has been listed
	stale   error
	told    remote.Causes // the reasons for being stale since the set was last current
}

// A change is the new value and lease of a key. The value is nil if the key is gone.
type change struct {
	value []byte
	lease int64
}

func newView() *view {
	return &view{changed: make(chan struct{}, 1), pending: make(map[string]change)}
}

// take returns the set as it is now.
func (v *view) take() discovery.Snapshot {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.merge()
	return discovery.Snapshot{Records: v.records, Stale: v.stale}
}

// position returns the view's revision and its number of records.
func (v *view) position() (rev int64, records int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.merge()
	return v.rev, len(v.records)
}

// merge makes new records with the pending changes. v.mu is held.
func (v *view) merge() {
	if len(v.pending) == 0 {
		return
	}
	records := make([]discovery.Record, 0, len(v.records)+len(v.pending))
	leases := make([]int64, 0, cap(records))
	next := 0
	for _, key := range slices.Sorted(maps.Keys(v.pending)) {
		at, found := v.find(next, key)
		records = append(records, v.records[next:at]...)
		leases = append(leases, v.leases[next:at]...)
		if next = at; found {
			next++
		}
		if c := v.pending[key]; c.value != nil {
			records = append(records, discovery.Record{Key: key, Value: c.value})
			leases = append(leases, c.lease)
		}
	}
	v.records = append(records, v.records[next:]...)
	v.leases = append(leases, v.leases[next:]...)
	clear(v.pending)
}

// find searches the records from the index from for a key, and returns where it is or
// belongs. v.mu is held.
func (v *view) find(from int, key string) (at int, found bool) {
	at, found = slices.BinarySearchFunc(v.records[from:], key, func(r discovery.Record, key string) int {
		return cmp.Compare(r.Key, key)
	})
	return from + at, found
}

// get returns a key's value and lease; the value is nil if the view does not have the
// key. v.mu is held.
func (v *view) get(key string) change {
	if c, ok := v.pending[key]; ok {
		return c
	}
	if at, found := v.find(0, key); found {
		return change{v.records[at].Value, v.leases[at]}
	}
	return change{}
}

// lease returns the lease of a key, and whether the view has the key.
func (v *view) lease(key string) (lease clientv3.LeaseID, found bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := v.get(key)
	return clientv3.LeaseID(c.lease), c.value != nil
}

// A listing is the set at one revision, sorted.
type listing struct {
	records []discovery.Record
	leases  []int64
	rev     int64
}

// reset replaces the set by one that was just listed. The set is stale if err is not
// nil.
func (v *view) reset(l listing, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.merge()
	fresh := discovery.Snapshot{Records: l.records, Stale: err}
	same := v.known && fresh.Equal(discovery.Snapshot{Records: v.records, Stale: v.stale})
	v.leases, v.rev = l.leases, l.rev
	if v.told = nil; err != nil {
		v.told.Add(kindOf(err))
	}
	if same {
		return // the reader has it
	}
	v.records, v.stale, v.known = l.records, err, true
	v.wake()
}

// apply applies events to the set, in etcd's order, and returns how many of them
// changed it.
func (v *view) apply(events []*mvccpb.Event) (changes int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range events {
		if e.Kv.ModRevision <= v.rev {
			continue
		}
		key, next := string(e.Kv.Key), change{}
		if e.Type == mvccpb.Event_PUT {
			next = change{e.Kv.Value, e.Kv.Lease}
			if next.value == nil {
				next.value = []byte{} // nil would mean that the key is gone
			}
		}
		last := v.get(key)
		if (last.value == nil) != (next.value == nil) || !bytes.Equal(last.value, next.value) {
			changes++
		}
		v.pending[key] = next
	}
	if changes > 0 {
		v.wake()
	}
	return changes
}

// advance notes that the set is also current at the revision rev.
func (v *view) advance(rev int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.rev = max(v.rev, rev)
}

// fail marks the set stale. Of each kind of reason only the first counts, because the
// next ones are the same outage.
func (v *view) fail(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.told.Add(kindOf(err)) {
		v.stale = err
		v.wake()
	}
}

// wake tells the reader that there is a new set to take. v.mu is held.
func (v *view) wake() { signal.Send(v.changed) }
