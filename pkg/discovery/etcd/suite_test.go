package etcd

import (
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/etcd/etcdtest"
	"github.com/request-migration/migrate/pkg/discovery/storetest"
)

// TestStore is not parallel, because the suite counts goroutines.
func TestStore(t *testing.T) {
	server := etcdtest.Start(t, etcdtest.Config{})
	behind := etcdtest.Client(t, server)
	join := func(tb testing.TB) discovery.Store {
		tb.Helper()
		s, err := Open(tb.Context(), Config{Endpoints: []string{server.Endpoint()}, LeaseTTL: time.Second})
		if err != nil {
			tb.Fatal(err)
		}
		return s
	}
	storetest.Run(t, storetest.Backend{
		Open: func(tb testing.TB) discovery.Store {
			tb.Helper()
			if _, err := behind.Delete(tb.Context(), "", clientv3.WithPrefix()); err != nil {
				tb.Fatalf("emptying etcd: %v", err)
			}
			return join(tb)
		},
		Join: func(tb testing.TB, _ discovery.Store) discovery.Store {
			tb.Helper()
			return join(tb)
		},
		Break: func(testing.TB, discovery.Store) { server.Kill() },
		Heal:  func(testing.TB, discovery.Store) { server.Restart() },
		Kill:  func(_ testing.TB, s discovery.Store) { kill(s.(*Store)) },
		Overwrite: func(tb testing.TB, _ discovery.Store, key string, value []byte) {
			tb.Helper()
			if _, err := behind.Put(tb.Context(), key, string(value)); err != nil {
				tb.Fatalf("writing past the stores: %v", err)
			}
		},
		// etcd looks for expired leases twice a second.
		LeaseTime: 2 * time.Second,
		TTL:       time.Second,
	})
}

// kill ends a store's work like a crash of its process.
func kill(s *Store) {
	s.life.End()
	s.keeper.lost(s.keeper.lease) // so that Close doesn't revoke it
}
