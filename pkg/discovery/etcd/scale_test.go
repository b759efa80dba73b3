package etcd

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/etcd/etcdtest"
	"github.com/request-migration/migrate/pkg/discovery/internal/remote"
)

const (
	fleet  = 10_000
	owners = 4
)

// register puts the fleet's records through a few stores, which it returns.
func register(tb testing.TB, server *etcdtest.Server) []*Store {
	tb.Helper()
	cfg := at(server)
	cfg.LeaseTTL = 10 * time.Second
	stores := make([]*Store, owners)
	var wg sync.WaitGroup
	for i := range stores {
		s := openStore(tb, cfg)
		stores[i] = s
		// A process with many instances registers a few at the same time.
		const side = 8
		for j := range side {
			wg.Go(func() {
				for n := i*side + j; n < fleet; n += owners * side {
					if _, err := s.Put(tb.Context(), fleetKey(n), fleetValue(n), 0); err != nil {
						tb.Error(err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	if tb.Failed() {
		tb.FailNow()
	}
	return stores
}

func fleetKey(n int) string { return fmt.Sprintf("%s%x", prefix, 1<<40+n*7919) }

func fleetValue(n int) []byte {
	return fmt.Appendf(nil, `{"type":"Endpoint","namespace":"dynamo","component":"backend","endpoint":"generate",`+
		`"instance_id":%d,"transport":{"ndjson":"10.0.%d.%d:41001"},"name":"server%d"}`, 1<<40+n*7919, n/256%256, n%256, n)
}

// isFleet reports whether a set is current and complete.
func isFleet(snap discovery.Snapshot) bool { return snap.Stale == nil && len(snap.Records) == fleet }

// TestFleet registers 10,000 records under a running watch, and loses them.
func TestFleet(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	cfg := at(server)
	watch := observe(t, openStore(t, cfg))
	watch.untilFresh()
	began := time.Now()
	stores := register(t, server)
	t.Logf("%d records registered in %v", fleet, time.Since(began).Round(time.Millisecond))
	watch.until("all records", isFleet)
	t.Logf("seen by a watch after %v", time.Since(began).Round(time.Millisecond))

	behind := etcdtest.Client(t, server)
	lease := leaseOf(t, behind, fleetKey(0))
	began = time.Now()
	if _, err := behind.Revoke(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	watch.until("the loss of one store's records", func(snap discovery.Snapshot) bool { return len(snap.Records) < fleet })
	watch.until("all records again", isFleet)
	healed(t, fmt.Sprintf("%d records are registered again", fleet/owners), began)

	began = time.Now()
	for _, s := range stores {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	watch.untilFresh()
	t.Logf("released in %v", time.Since(began).Round(time.Millisecond))
}

// BenchmarkList10k times the first set of a new watch.
func BenchmarkList10k(b *testing.B) {
	server := etcdtest.Start(b, etcdtest.Config{})
	register(b, server)
	s := openStore(b, at(server))
	b.ReportAllocs()
	for b.Loop() {
		for snap, err := range s.Watch(b.Context(), prefix) {
			if err != nil || len(snap.Records) != fleet {
				b.Fatalf("%d records, %v", len(snap.Records), err)
			}
			break
		}
	}
}

// BenchmarkFollow10k times a change after a pause until a running watch yields it, and the
// registration of all records before that.
func BenchmarkFollow10k(b *testing.B) {
	server := etcdtest.Start(b, etcdtest.Config{})
	began := time.Now()
	stores := register(b, server)
	b.ReportMetric(time.Since(began).Seconds(), "s-to-register")
	watch := observe(b, openStore(b, at(server)))
	watch.until("all records", isFleet)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		b.StopTimer()
		<-time.After(remote.Pace(fleet))
		b.StartTimer()
		n++
		value := fmt.Sprint(n)
		put(b, stores[0], fleetKey(0), value, 0)
		watch.until("the change", func(snap discovery.Snapshot) bool {
			return string(snap.Records[0].Value) == value
		})
	}
}

// BenchmarkApply10k times one change to a set, with the copy for its reader.
func BenchmarkApply10k(b *testing.B) {
	v := newView()
	records := make([]discovery.Record, fleet)
	for n := range records {
		records[n] = discovery.Record{Key: fmt.Sprintf("%08d", n), Value: fleetValue(n)}
	}
	v.reset(listed(records...), nil)
	b.ReportAllocs()
	for b.Loop() {
		v.apply([]*mvccpb.Event{deleteEvent("00005000")})
		v.apply([]*mvccpb.Event{putEvent("00005000", "back")})
		<-v.changed
		_ = v.take()
	}
}
