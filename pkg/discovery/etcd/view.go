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
)

// view is what one watch knows. A follower changes it, a reader takes it, each
// in its own time: changes gather until the reader takes them, and cost one pass
// over the set together.
type view struct {
	changed chan struct{} // has one token when there is something to take

	mu      sync.Mutex         // guards what follows
	records []discovery.Record // sorted; handed out, and so never changed
	leases  []int64            // of the records
	pending map[string]change  // since the records were made
	rev     int64              // of etcd; older events are in the records
	known   bool               // a first set has been listed
	stale   error
	told    causes // why the set was stale, since it was last current
}

// change is a key's value and lease; the value is nil if the key is gone.
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

// position returns which revision the view is of, and its number of records.
func (v *view) position() (rev int64, records int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.merge()
	return v.rev, len(v.records)
}

// merge makes the records anew with what is pending. v.mu is held.
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

// find returns where in the records, not before from, the key is or belongs.
// v.mu is held.
func (v *view) find(from int, key string) (at int, found bool) {
	at, found = slices.BinarySearchFunc(v.records[from:], key, func(r discovery.Record, key string) int {
		return cmp.Compare(r.Key, key)
	})
	return from + at, found
}

// get returns what the view has of a key: no value if it is not there. v.mu is held.
func (v *view) get(key string) change {
	if c, ok := v.pending[key]; ok {
		return c
	}
	if at, found := v.find(0, key); found {
		return change{v.records[at].Value, v.leases[at]}
	}
	return change{}
}

// lease returns the lease of a key that the view has.
func (v *view) lease(key string) (lease clientv3.LeaseID, found bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := v.get(key)
	return clientv3.LeaseID(c.lease), c.value != nil
}

// A listing is a set as etcd had it at one revision, sorted.
type listing struct {
	records []discovery.Record
	leases  []int64
	rev     int64
}

// reset replaces the set by one that was just listed. It is stale for the
// reason of err, if there is one.
func (v *view) reset(l listing, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.merge()
	fresh := discovery.Snapshot{Records: l.records, Stale: err}
	same := v.known && fresh.Equal(discovery.Snapshot{Records: v.records, Stale: v.stale})
	v.leases, v.rev = l.leases, l.rev
	if v.told = nil; err != nil {
		v.told.add(err)
	}
	if same {
		return // the reader has it
	}
	v.records, v.stale, v.known = l.records, err, true
	v.wake()
}

// apply makes changes to the set, in etcd's order, and returns how many there
// are that it did not have yet.
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
				next.value = []byte{} // an empty one is there all the same
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

// advance takes note that the set is what etcd has at the revision.
func (v *view) advance(rev int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.rev = max(v.rev, rev)
}

// fail marks the set as the last known one. Of each kind of reason the first
// counts: what follows is the same outage.
func (v *view) fail(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.told.add(err) {
		v.stale = err
		v.wake()
	}
}

// wake tells the reader that there is something to take. v.mu is held.
func (v *view) wake() {
	select {
	case v.changed <- struct{}{}:
	default: // not taken yet
	}
}
