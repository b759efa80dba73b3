package etcd

import (
	"context"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/request-migration/migrate/pkg/discovery/etcd/etcdtest"
)

// TestExpiryIsOneRequest asks for the expiry of a record that a watch knows.
func TestExpiryIsOneRequest(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	gateway := etcdtest.StartGateway(t, server)
	s := openStore(t, Config{Endpoints: []string{gateway.Endpoint()}})
	watch := observe(t, s)
	watch.untilFresh()
	put(t, openStore(t, at(server)), one, "1", time.Hour)
	watch.untilFresh(one)
	before := gateway.Counts()
	expiry, err := s.Expiry(t.Context(), one)
	if err != nil || expiry < 59*time.Minute || expiry > time.Hour+time.Second {
		t.Errorf("Expiry: %v, %v, want an hour", expiry, err)
	}
	after := gateway.Counts()
	for method, want := range map[string]int{
		etcdserverpb.KV_Range_FullMethodName:              0,
		etcdserverpb.Lease_LeaseTimeToLive_FullMethodName: 1,
	} {
		if n := after[method] - before[method]; n != want {
			t.Errorf("%d requests to %s, want %d", n, method, want)
		}
	}
}

// TestNoLeaseWithoutRecord checks that a Put that fails, or whose context ends, leaves
// no lease behind.
func TestNoLeaseWithoutRecord(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	gateway := etcdtest.StartGateway(t, server)
	s := openStore(t, Config{Endpoints: []string{gateway.Endpoint()}})
	refuse := func(refused string, with error) {
		gateway.Refuse(func(method string) error {
			if method == refused {
				return with
			}
			return nil
		})
	}
	refuse(etcdserverpb.KV_Put_FullMethodName, rpctypes.ErrGRPCNoSpace)
	if _, err := s.Put(t.Context(), one, []byte("1"), time.Hour); err == nil {
		t.Error("a refused Put succeeded")
	}

	ctx, cancel := context.WithCancel(t.Context())
	gateway.Refuse(func(method string) error {
		if method == etcdserverpb.KV_Put_FullMethodName {
			cancel()
		}
		return nil
	})
	if lease, err := s.Put(ctx, two, []byte("1"), time.Hour); err == nil {
		if err := lease.Release(t.Context()); err != nil { // it was faster
			t.Fatal(err)
		}
	}
	gateway.Refuse(nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	leases, err := etcdtest.Client(t, server).Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(leases.Leases) != 0 {
		t.Errorf("%d leases are left behind", len(leases.Leases))
	}
}

// TestRenewalIsOneRequest checks that an idle owner does nothing but renew.
func TestRenewalIsOneRequest(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	gateway := etcdtest.StartGateway(t, server)
	s := openStore(t, Config{Endpoints: []string{gateway.Endpoint()}})
	put(t, s, one, "1", 0)
	before := gateway.Counts()
	const renewals = 20
	<-time.After(renewals * s.keeper.interval)
	after := gateway.Counts()
	const method = etcdserverpb.Lease_LeaseTimeToLive_FullMethodName
	if n := after[method] - before[method]; n > renewals/3 {
		t.Errorf("%d questions about the lease beside %d renewals, want one in %d", n, renewals, lookEvery)
	}
}
