package etcd

import (
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery/etcd/etcdtest"
)

// leader returns which of the servers leads them.
func leader(t *testing.T, servers []*etcdtest.Server) *etcdtest.Server {
	t.Helper()
	client := etcdtest.Client(t, servers...)
	for _, s := range servers {
		status, err := client.Status(t.Context(), s.Endpoint())
		if err != nil {
			t.Fatal(err)
		}
		if status.Header.MemberId == status.Leader {
			return s
		}
	}
	t.Fatal("the cluster has no leader")
	return nil
}

func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	servers := etcdtest.StartCluster(t, 3)
	cfg := at(servers...)
	cfg.LeaseTTL = 2 * time.Second
	tr := trouble(t, cfg, cfg)

	leader(t, servers).Kill()
	began := time.Now()
	// Another member leads only after a while.
	put(t, tr.owner, two, "2", 0)
	tr.watch.untilFresh(one, two)
	healed(t, "a new record is seen", began)
	if w := tr.logs.warnings(); len(w) > 1 {
		t.Errorf("one outage was warned of %d times: %q", len(w), w)
	}
	stays(t, tr.watch, cfg.LeaseTTL*5/4)
}

// TestLeaderFrozen is worse than a leader that is killed: the connections stay open.
func TestLeaderFrozen(t *testing.T) {
	t.Parallel()
	servers := etcdtest.StartCluster(t, 3)
	cfg := at(servers...)
	cfg.LeaseTTL = 2 * time.Second
	tr := trouble(t, cfg, cfg)

	frozen := leader(t, servers)
	frozen.Freeze()
	began := time.Now()
	put(t, tr.owner, two, "2", 0)
	t.Logf("put after %v", time.Since(began).Round(time.Millisecond))
	tr.watch.untilFresh(one, two)
	t.Logf("seen after %v", time.Since(began).Round(time.Millisecond))
	frozen.Thaw()
	began = time.Now()
	put(t, tr.owner, two, "thawed", 0)
	tr.watch.untilFresh(one, two)
	healed(t, "a changed record is seen", began)
}

// stays checks that the record is in every current set for a while: the lease outlived
// the election.
func stays(t *testing.T, watch *observer, d time.Duration) {
	t.Helper()
	end := time.AfterFunc(d, watch.cancel)
	defer end.Stop()
	for {
		snap, err, _ := watch.pull()
		if err != nil {
			return
		}
		if len(snap.Records) != 2 {
			t.Errorf("the set became %v", values(snap))
		}
	}
}

// TestQuorumLost opens a new store when most members are gone. The remaining one tells
// what it knows, and the set is stale.
func TestQuorumLost(t *testing.T) {
	t.Parallel()
	servers := etcdtest.StartCluster(t, 3)
	owner := openStore(t, at(servers...))
	put(t, owner, one, "1", time.Hour)
	for _, s := range servers[1:] {
		s.Kill()
	}
	watch := observe(t, openStore(t, at(servers...)))
	watch.untilStale(one)
	servers[1].Restart()
	watch.untilFresh(one)
}

// TestTwoClusters configures the members of two clusters as those of one.
func TestTwoClusters(t *testing.T) {
	t.Parallel()
	a, b := etcdtest.Start(t, etcdtest.Config{}), etcdtest.Start(t, etcdtest.Config{})
	cfg := at(a, b)
	cfg.DialTimeout = patient // a busy machine may take its time to compare
	refuses(t, cfg, patient, a.Endpoint(), b.Endpoint(), "different clusters")

	// A member that is away while the store is opened is checked when the lease seems
	// to be lost.
	b.Kill()
	logs, log := capture()
	cfg = at(a, b)
	cfg.Logger = log
	owner := openStore(t, cfg)
	put(t, owner, one, "1", 0)
	b.Restart()
	behind := etcdtest.Client(t, a)
	if _, err := behind.Revoke(t.Context(), leaseOf(t, behind, one)); err != nil {
		t.Fatal(err)
	}
	logs.waitCause(t, lineWarned, "different clusters")
}
