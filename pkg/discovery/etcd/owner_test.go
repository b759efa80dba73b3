package etcd

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/request-migration/migrate/pkg/discovery/etcd/etcdtest"
)

// The records of two servers with the same id.
const (
	ours   = `{"type":"Endpoint","incarnation":"a","name":"server1"}`
	theirs = `{"type":"Endpoint","incarnation":"b","name":"server2"}`
)

// awaitKey returns once the record under one is right.
func awaitKey(t *testing.T, client *clientv3.Client, what string, right func(value string, lease int64) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	changes := client.Watch(ctx, one)
	for {
		resp, err := client.Get(ctx, one)
		if err != nil {
			t.Fatalf("waiting for %s: %v", what, err)
		}
		switch {
		case len(resp.Kvs) == 0 && right("", 0):
			return
		case len(resp.Kvs) > 0 && right(string(resp.Kvs[0].Value), resp.Kvs[0].Lease):
			return
		}
		if _, ok := <-changes; !ok {
			t.Fatalf("no %s within %v: %v", what, patient, resp.Kvs)
		}
	}
}

// TestPutBehindOwnersBack has somebody else write the record of a live owner without a
// lease, like a mirror or a script. The owner takes it over.
func TestPutBehindOwnersBack(t *testing.T) {
	t.Parallel()
	for what, value := range map[string]string{
		"the same":                ours,
		"of the same incarnation": `{"name":"renamed","incarnation":"a"}`,
		"damaged":                 "{",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			server := etcdtest.Start(t, etcdtest.Config{})
			behind := etcdtest.Client(t, server)
			logs, log := capture()
			cfg := at(server)
			cfg.Logger = log
			s := openStore(t, cfg)
			put(t, s, one, ours, 0)
			if _, err := behind.Put(t.Context(), one, value); err != nil {
				t.Fatal(err)
			}
			awaitKey(t, behind, "record with a lease", func(value string, lease int64) bool { return value == ours && lease != 0 })
			logs.wait(t, lineAgain, 1)
			kill(s)
			awaitKey(t, behind, "end of the record with its owner", func(value string, _ int64) bool { return value == "" })
			if w := logs.warnings(); len(w) != 0 {
				t.Errorf("the owner warned: %q", w)
			}
		})
	}
}

// TestLeftBehindOwnersBack releases and closes before the owner has noticed.
func TestLeftBehindOwnersBack(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	behind := etcdtest.Client(t, server)
	cfg := at(server)
	cfg.LeaseTTL = time.Minute
	s := openStore(t, cfg)
	lease := put(t, s, one, ours, 0)
	overwrite := func(value string) {
		t.Helper()
		if _, err := behind.Put(t.Context(), one, value); err != nil {
			t.Fatal(err)
		}
	}
	gone := func(value string, _ int64) bool { return value == "" }
	overwrite(ours)
	if err := lease.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitKey(t, behind, "released record", gone)

	put(t, s, one, ours, 0)
	put(t, s, two, ours, 0)
	overwrite(ours)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	awaitKey(t, behind, "record of a closed store", gone)

	s = openStore(t, cfg)
	lease = put(t, s, one, ours, 0)
	overwrite(theirs)
	if err := lease.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitKey(t, behind, "another's record, left alone", func(value string, _ int64) bool { return value == theirs })
}

// TestReplacedOwnerReturns has two servers under one id. The newest stands, and the first
// returns once the newest is gone, in whatever way.
func TestReplacedOwnerReturns(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"released", "closed", "killed"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			server := etcdtest.Start(t, etcdtest.Config{})
			behind := etcdtest.Client(t, server)
			logs, log := capture()
			cfg := at(server)
			cfg.Logger = log
			first := openStore(t, cfg)
			put(t, first, one, ours, 0)
			newest := openStore(t, at(server))
			lease := put(t, newest, one, theirs, 0)
			logs.wait(t, lineReplaced, 1)
			stand := func(want string) func(string, int64) bool {
				return func(value string, lease int64) bool { return value == want && lease != 0 }
			}
			awaitKey(t, behind, "the newest record", stand(theirs))
			switch how {
			case "released":
				if err := lease.Release(t.Context()); err != nil {
					t.Fatal(err)
				}
			case "closed":
				if err := newest.Close(); err != nil {
					t.Fatal(err)
				}
			case "killed":
				kill(newest)
			}
			awaitKey(t, behind, "the first record", stand(ours))
			logs.wait(t, lineAgain, 1)
			if w := logs.warnings(); len(w) != 1 || w[0] != lineReplaced {
				t.Errorf("the warnings are %q, want %q once", w, lineReplaced)
			}
		})
	}
}
