package etcd

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/request-migration/migrate/pkg/discovery/etcd/etcdtest"
)

// leaseOf returns the lease of a key, or 0 if it has none.
func leaseOf(tb testing.TB, client *clientv3.Client, key string) clientv3.LeaseID {
	tb.Helper()
	resp, err := client.Get(tb.Context(), key)
	if err != nil {
		tb.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return 0
	}
	return clientv3.LeaseID(resp.Kvs[0].Lease)
}

func TestOneLease(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	behind := etcdtest.Client(t, server)
	s := openStore(t, at(server))
	put(t, s, one, "1", 0)
	put(t, s, two, "2", 0)
	put(t, s, prefix+"brief", "3", time.Hour)
	lease := leaseOf(t, behind, one)
	if other := leaseOf(t, behind, two); lease == 0 || other != lease {
		t.Errorf("two kept records stand under the leases %x and %x, want one", lease, other)
	}
	if other := leaseOf(t, behind, prefix+"brief"); other == 0 || other == lease {
		t.Errorf("a record with a ttl stands under the lease %x, that of the kept ones is %x", other, lease)
	}
}

func TestReadersHaveNoLease(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	observe(t, openStore(t, at(server))).untilFresh()
	leases, err := etcdtest.Client(t, server).Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(leases.Leases) != 0 {
		t.Errorf("a store that only reads has taken a lease: %v", leases.Leases)
	}
}

func TestLeaseRevoked(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	behind := etcdtest.Client(t, server)
	cfg := at(server)
	cfg.LeaseTTL = time.Minute // it is renewed every 3 s nevertheless
	tr := trouble(t, cfg, at(server))
	put(t, tr.owner, two, "2", 0)
	tr.watch.untilFresh(one, two)

	if _, err := behind.Revoke(t.Context(), leaseOf(t, behind, one)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	tr.watch.untilFresh()
	tr.watch.untilFresh(one, two)
	healed(t, "the owner is registered", began)
	tr.logs.wait(t, lineHealed, 1)
	tr.logs.warnedOnce(t)
	if w := tr.logs.warnings(); w[0] != lineLost {
		t.Errorf("the warning is %q, want %q", w[0], lineLost)
	}
}

// TestPutFindsLeaseLost puts a record right after the lease was lost. The Put succeeds,
// and the other records return at once.
func TestPutFindsLeaseLost(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	behind := etcdtest.Client(t, server)
	cfg := at(server)
	cfg.LeaseTTL = time.Minute
	tr := trouble(t, cfg, at(server))

	if _, err := behind.Revoke(t.Context(), leaseOf(t, behind, one)); err != nil {
		t.Fatal(err)
	}
	put(t, tr.owner, two, "2", 0)
	tr.watch.untilFresh(one, two)
	tr.logs.wait(t, lineHealed, 1)
	tr.logs.warnedOnce(t)
}

func TestDeletedKeyIsWrittenAgain(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	tr := trouble(t, at(server), at(server))
	if _, err := etcdtest.Client(t, server).Delete(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	tr.watch.untilFresh()
	tr.watch.untilFresh(one)
	if w := tr.logs.warnings(); len(w) != 0 {
		t.Errorf("the owner warned: %q", w)
	}
}

// TestReleasedWhileAway checks that a record whose release failed does not live on because
// the lease is renewed for others.
func TestReleasedWhileAway(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	proxy := etcdtest.StartProxy(t, server)
	cfg := Config{Endpoints: []string{proxy.Endpoint()}, LeaseTTL: time.Minute}
	s := openStore(t, cfg)
	lease := put(t, s, one, "1", 0)
	put(t, s, two, "2", 0)
	watch := observe(t, openStore(t, at(server)))
	watch.untilFresh(one, two)

	proxy.Cut()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := lease.Release(ctx); err == nil {
		t.Error("a release that etcd could not hear of succeeded")
	}
	if err := lease.Release(t.Context()); err != nil {
		t.Errorf("releasing again: %v", err)
	}
	proxy.Heal()
	watch.untilFresh(two)
}

// TestLargeRecordsRestored loses more records than fit into one transaction.
func TestLargeRecordsRestored(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	behind := etcdtest.Client(t, server)
	s := openStore(t, at(server))
	large := make([]byte, 400<<10)
	keys := []string{prefix + "a", prefix + "b", prefix + "c", prefix + "d"}
	for _, key := range keys {
		put(t, s, key, string(large), 0)
	}
	watch := observe(t, s)
	watch.untilFresh(keys...)
	if _, err := behind.Revoke(t.Context(), leaseOf(t, behind, keys[0])); err != nil {
		t.Fatal(err)
	}
	watch.untilFresh()
	watch.untilFresh(keys...)
}
