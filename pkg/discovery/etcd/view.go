package etcd

import (
	"cmp"
	"slices"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/request-migration/migrate/pkg/discovery"
)

// view is what one watch knows. A follower changes it, a reader takes it, each
// in its own time: what changes while the reader is busy costs no copy.
type view struct {
	changed chan struct{} // has one token when there is something to take

	mu      sync.Mutex         // guards what follows
	records []discovery.Record // sorted; the follower's, never handed out
	stale   error
	known   bool // a first set has been listed
}

func newView() *view { return &view{changed: make(chan struct{}, 1)} }

// take returns a copy of the set as it is now.
func (v *view) take() discovery.Snapshot {
	v.mu.Lock()
	defer v.mu.Unlock()
	return discovery.Snapshot{Records: slices.Clone(v.records), Stale: v.stale}
}

// reset replaces the set by one that was just listed.
func (v *view) reset(records []discovery.Record) {
	v.mu.Lock()
	defer v.mu.Unlock()
	fresh := discovery.Snapshot{Records: records}
	if v.known && fresh.Equal(discovery.Snapshot{Records: v.records, Stale: v.stale}) {
		return // the reader has it
	}
	v.records, v.stale, v.known = records, nil, true
	v.wake()
}

// apply makes changes to the set, in etcd's order.
func (v *view) apply(events []*mvccpb.Event) {
	if len(events) == 0 {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range events {
		key := string(e.Kv.Key)
		i, found := slices.BinarySearchFunc(v.records, key, func(r discovery.Record, key string) int {
			return cmp.Compare(r.Key, key)
		})
		switch {
		case e.Type == mvccpb.Event_DELETE && found:
			v.records = slices.Delete(v.records, i, i+1)
		case e.Type == mvccpb.Event_DELETE:
		case found:
			v.records[i].Value = e.Kv.Value
		default:
			v.records = slices.Insert(v.records, i, discovery.Record{Key: key, Value: e.Kv.Value})
		}
	}
	v.wake()
}

// fail marks the set as the last known one. Only the first reason counts: what
// follows is the same outage.
func (v *view) fail(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.stale == nil {
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
