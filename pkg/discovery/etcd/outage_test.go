package etcd

import (
	"strings"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery/etcd/etcdtest"
)

// A troubled test has an owner and a reader of one record, each with its own store.
type troubled struct {
	owner *Store
	logs  *logs
	watch *observer
}

func trouble(t *testing.T, owner, reader Config) troubled {
	t.Helper()
	var tr troubled
	tr.logs, owner.Logger = capture()
	tr.owner = openStore(t, owner)
	put(t, tr.owner, one, "1", 0)
	tr.watch = observe(t, openStore(t, reader))
	tr.watch.untilFresh(one)
	return tr
}

func TestRestartedOnItsData(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	tr := trouble(t, at(server), at(server))

	server.Kill()
	began := time.Now()
	tr.watch.untilStale(one)
	t.Logf("stale %v after the kill", time.Since(began).Round(time.Millisecond))
	tr.logs.wait(t, lineWarned, 1)
	tr.logs.wait(t, "renewal failed again", 3)

	server.Restart()
	began = time.Now()
	tr.watch.untilFresh(one)
	healed(t, "the watch is current", began)
	tr.logs.wait(t, lineHealed, 1)
	healed(t, "the owner is registered", began)
	put(t, tr.owner, two, "2", 0)
	tr.watch.untilFresh(one, two)
	tr.logs.warnedOnce(t)
}

func TestRestartedWithoutItsData(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	tr := trouble(t, at(server), at(server))

	server.Kill()
	tr.watch.untilStale(one)
	tr.logs.wait(t, lineWarned, 1)
	server.Wipe()
	server.Restart()
	began := time.Now()
	tr.logs.wait(t, lineHealed, 1)
	healed(t, "the owner is registered", began)
	tr.watch.untilFresh(one)
	healed(t, "the watch has the record", began)
	tr.logs.warnedOnce(t)
}

// TestFrozenForLongerThanTheLease freezes etcd, whose clock runs on: the lease has expired
// when it returns.
func TestFrozenForLongerThanTheLease(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	tr := trouble(t, at(server), at(server))

	server.Freeze()
	began := time.Now()
	tr.watch.untilStale(one) // which takes longer than the lease
	t.Logf("stale %v after the freeze", time.Since(began).Round(time.Millisecond))
	tr.logs.wait(t, lineWarned, 1)

	server.Thaw()
	began = time.Now()
	tr.logs.wait(t, lineHealed, 1)
	healed(t, "the owner is registered", began)
	tr.logs.wait(t, lineAgain, 1) // not just renewed
	tr.watch.untilFresh(one)
	healed(t, "the watch is current", began)
	tr.logs.warnedOnce(t)
}

// TestPartitionedOwner cuts off the owner alone, for longer than its lease lasts.
func TestPartitionedOwner(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	proxy := etcdtest.StartProxy(t, server)
	tr := trouble(t, Config{Endpoints: []string{proxy.Endpoint()}}, at(server))

	proxy.Cut()
	tr.watch.untilFresh() // the reader sees that the lease has expired
	tr.logs.wait(t, lineWarned, 1)
	proxy.Heal()
	began := time.Now()
	tr.watch.untilFresh(one)
	healed(t, "the owner is registered", began)
	tr.logs.wait(t, lineHealed, 1)
	tr.logs.warnedOnce(t)
}

// TestPartitionedReader cuts off the reader alone, and lets it miss changes that
// etcd then forgets.
func TestPartitionedReader(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	proxy := etcdtest.StartProxy(t, server)
	tr := trouble(t, at(server), Config{Endpoints: []string{proxy.Endpoint()}})

	proxy.Cut()
	tr.watch.untilStale(one)
	lease := put(t, tr.owner, two, "2", 0)
	if err := lease.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, tr.owner, one, "changed", 0)
	compact(t, etcdtest.Client(t, server))
	proxy.Heal()
	began := time.Now()
	tr.watch.untilFresh(one)
	healed(t, "the watch is current", began)
	if w := tr.logs.warnings(); len(w) != 0 {
		t.Errorf("the owner warned: %q", w)
	}
}

// TestShortOutages checks that there is one warning for each outage.
func TestShortOutages(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	tr := trouble(t, at(server), at(server))
	for n := range 2 {
		server.Kill()
		tr.logs.wait(t, lineWarned, n+1)
		server.Restart()
		tr.logs.wait(t, lineHealed, n+1)
	}
	if w := tr.logs.warnings(); len(w) != 2 {
		t.Errorf("two outages were warned of %d times: %q", len(w), w)
	}
}

// TestPutWhileAway checks that a Put fails with the cause.
func TestPutWhileAway(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	s := openStore(t, at(server))
	s.patience = 500 * time.Millisecond
	server.Kill()
	began := time.Now()
	_, err := s.Put(t.Context(), one, []byte("1"), 0)
	took := time.Since(began)
	t.Logf("after %v: %v", took.Round(time.Millisecond), err)
	if err == nil || took < s.patience/2 || took > s.patience+2*requestTimeout {
		t.Errorf("Put returned %v after %v, want an error after about %v", err, took, s.patience)
	}
	for _, err := range s.Watch(t.Context(), prefix) {
		if err == nil {
			t.Error("a watch began without etcd")
		}
	}
}

// TestLeavingWhileAway checks that neither Release nor Close waits for an etcd that hangs,
// and that their errors say in one line what they leave behind.
func TestLeavingWhileAway(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	s := openStore(t, at(server))
	lease := put(t, s, one, "1", 0)
	put(t, s, two, "2", 0)
	watch := observe(t, openStore(t, at(server)))
	watch.untilFresh(one, two)
	server.Freeze()
	for _, leave := range []struct {
		what string
		do   func() error
	}{
		{"releasing " + one, func() error { return lease.Release(t.Context()) }},
		{"releasing the records in etcd", s.Close},
	} {
		ended := make(chan error, 1)
		go func() { ended <- leave.do() }()
		select {
		case err := <-ended:
			t.Log(err)
			for _, text := range []string{leave.what, "expire", "no answer within"} {
				if err == nil || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n") {
					t.Errorf("the error is %q, want one line with %q", err, text)
				}
			}
		case <-time.After(patient):
			t.Fatalf("%s has not ended after %v", leave.what, patient)
		}
	}
	server.Thaw()
	watch.untilFresh()
}

// TestClosedEmptyWhileAway closes a store that has nothing in etcd any more.
func TestClosedEmptyWhileAway(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	s := openStore(t, at(server))
	if err := put(t, s, one, "1", 0).Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	server.Freeze()
	if err := s.Close(); err != nil {
		t.Errorf("Close has nothing to say, but says %v", err)
	}
	server.Thaw()
}
