package etcd

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/etcd/etcdtest"
)

// unwritten is how long a test leaves etcd without a write: several times as long as a
// watch is silent before it asks for its progress.
const unwritten = 20 * time.Second

// TestIdle checks watches while nobody writes: no set becomes stale, nothing is listed
// again, and there is hardly any traffic, however many records there are. They see a
// record that is put afterwards.
func TestIdle(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	owner := openStore(t, at(server))
	const records = 2000
	for n := range records {
		put(t, owner, fleetKey(n), string(fleetValue(n)), 0)
	}

	t.Run("etcd", func(t *testing.T) {
		t.Parallel()
		proxy := etcdtest.StartProxy(t, server)
		logs, log := capture()
		s := openStore(t, Config{Endpoints: []string{proxy.Endpoint()}, Logger: log})
		instances := watchIdle(t, s, prefix, records)
		watchIdle(t, s, "v1/down/dynamo/backend/generate/", 0)
		before := proxy.Bytes()
		instances.rest()
		carried := proxy.Bytes() - before
		t.Logf("%d B/s carried", carried/int64(unwritten/time.Second))
		if limit := 200 * int64(unwritten/time.Second); carried > limit {
			t.Errorf("two idle watches moved %d bytes in %v, want %d at the most", carried, unwritten, limit)
		}
		if lists := logs.count("snapshot"); lists != 2 {
			t.Errorf("two watches listed %d times, want once each", lists)
		}
	})

	t.Run("a proxy that tells nothing of progress", func(t *testing.T) {
		t.Parallel()
		gateway := etcdtest.StartGateway(t, server)
		gateway.DropProgress()
		logs, log := capture()
		s := openStore(t, Config{Endpoints: []string{gateway.Endpoint()}, Logger: log})
		watchIdle(t, s, prefix, records).rest()
		if lists := logs.count("snapshot"); lists != 1 {
			t.Errorf("the watch listed %d times, want once", lists)
		}
		if n := gateway.Counts()["progress"]; n == 0 {
			t.Error("nobody asked the gateway about progress: the test shows nothing")
		}
	})
}

// An idleWatch is a watch of records that don't change.
type idleWatch struct {
	t      *testing.T
	cancel context.CancelFunc
	ended  chan []discovery.Snapshot
	first  chan struct{}
}

// watchIdle returns once the watch has yielded its first set.
func watchIdle(t *testing.T, s *Store, prefix string, records int) *idleWatch {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &idleWatch{t: t, cancel: cancel, ended: make(chan []discovery.Snapshot, 1), first: make(chan struct{})}
	go func() {
		var sets []discovery.Snapshot
		for snap, err := range s.Watch(ctx, prefix) {
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("the watch ended: %v", err)
				}
				break
			}
			if sets = append(sets, snap); len(sets) == 1 {
				close(w.first)
			}
		}
		w.ended <- sets
	}()
	select {
	case <-w.first:
	case <-time.After(patient):
		t.Fatalf("no first set within %v", patient)
	}
	t.Cleanup(func() {
		cancel()
		sets := <-w.ended
		if len(sets[0].Records) != records {
			t.Errorf("the watch has %d records, want %d", len(sets[0].Records), records)
		}
		for _, snap := range sets[1:] {
			t.Errorf("a watch of what does not change yielded %d records, stale: %v", len(snap.Records), snap.Stale)
		}
	})
	return w
}

// rest lets the time pass in which nothing may happen. It returns sooner if the watch
// ends.
func (w *idleWatch) rest() {
	select {
	case sets := <-w.ended:
		w.ended <- sets
	case <-time.After(unwritten):
	}
}

// TestMissedChanges has a proxy that drops questions about progress, and then changes too.
// The watch notices that, and lists again, without ever becoming stale.
func TestMissedChanges(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	gateway := etcdtest.StartGateway(t, server)
	gateway.DropProgress()
	owner := openStore(t, at(server))
	lease := put(t, owner, one, "1", 0)
	watch := observe(t, openStore(t, Config{Endpoints: []string{gateway.Endpoint()}}))
	watch.untilFresh(one)

	gateway.DropChanges()
	for n, keys := range [][]string{{one, two}, {two}} {
		if n == 0 {
			put(t, owner, two, "2", 0)
		} else if err := lease.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		watch.until(fmt.Sprintf("%v", keys), func(snap discovery.Snapshot) bool {
			if snap.Stale != nil {
				t.Errorf("a set is stale though etcd can be read: %v", snap.Stale)
			}
			return len(snap.Records) == len(keys)
		})
	}
}
