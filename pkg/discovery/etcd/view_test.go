package etcd

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/etcd/etcdtest"
	"github.com/request-migration/migrate/pkg/discovery/internal/remote"
)

func putEvent(key, value string) *mvccpb.Event {
	return &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), ModRevision: 2}}
}

func deleteEvent(key string) *mvccpb.Event {
	return &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: 2}}
}

// listed returns a listing of the records at revision 1.
func listed(records ...discovery.Record) listing {
	return listing{records: records, leases: make([]int64, len(records)), rev: 1}
}

func show(snap discovery.Snapshot) string {
	text := ""
	for _, r := range snap.Records {
		text += fmt.Sprintf("%s=%s ", r.Key, r.Value)
	}
	return text
}

func TestView(t *testing.T) {
	v := newView()
	news := func() bool {
		select {
		case <-v.changed:
			return true
		default:
			return false
		}
	}
	expect := func(what string, told bool, want string) {
		t.Helper()
		if news() != told {
			t.Errorf("%s: the reader is told: %v, want %v", what, !told, told)
		}
		if got := show(v.take()); got != want {
			t.Errorf("%s: the set is %q, want %q", what, got, want)
		}
	}
	b2 := discovery.Record{Key: "b", Value: []byte("2")}
	c1 := discovery.Record{Key: "c", Value: []byte("1")}
	v.reset(listed(), nil)
	expect("an empty first list", true, "")
	v.apply([]*mvccpb.Event{putEvent("b", "1"), putEvent("a", "1"), putEvent("c", "1"), deleteEvent("x")})
	early := v.take()
	expect("three puts", true, "a=1 b=1 c=1 ")
	v.apply([]*mvccpb.Event{putEvent("b", "2"), deleteEvent("a"), putEvent("d", "1"), deleteEvent("d")})
	expect("changes", true, "b=2 c=1 ")
	old := putEvent("a", "old")
	old.Kv.ModRevision = 1
	v.apply([]*mvccpb.Event{old, putEvent("b", "2"), deleteEvent("x")})
	expect("events that change nothing", false, "b=2 c=1 ")
	v.apply([]*mvccpb.Event{putEvent("b", "")})
	expect("an empty value", true, "b= c=1 ")
	v.apply([]*mvccpb.Event{putEvent("b", "2")})
	expect("a value again", true, "b=2 c=1 ")
	v.apply(nil)
	expect("a sign of life", false, "b=2 c=1 ")
	v.reset(listed(b2, c1), nil)
	expect("the same list again", false, "b=2 c=1 ")

	first, other := remote.NoAnswer(1), errors.New("refused")
	v.fail(first)
	expect("a failure", true, "b=2 c=1 ")
	v.fail(remote.NoAnswer(2))
	expect("a failure of the same kind", false, "b=2 c=1 ")
	if got := v.take().Stale; !errors.Is(got, first) {
		t.Errorf("stale because of %v, want the first reason of its kind", got)
	}
	v.fail(other)
	expect("a failure of another kind", true, "b=2 c=1 ")
	v.fail(first)
	expect("the first kind of failure again", false, "b=2 c=1 ")
	if got := v.take().Stale; !errors.Is(got, other) {
		t.Errorf("stale because of %v, want the newest kind of reason", got)
	}
	v.reset(listed(b2, c1), nil)
	if got := v.take().Stale; got != nil {
		t.Errorf("stale after a list: %v", got)
	}
	expect("the same list after a failure", true, "b=2 c=1 ")
	if got := show(early); got != "a=1 b=1 c=1 " {
		t.Errorf("a set that was taken has become %q", got)
	}
}

// TestWatchIsPaced changes a large set many times. Its reader gets the changes together, in
// sets with a pause between them, and finally all of them.
func TestWatchIsPaced(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	writer := openStore(t, at(server))
	const records, changes = 5000, 400
	var puts []clientv3.Op
	behind := etcdtest.Client(t, server)
	for n := range records {
		if puts = append(puts, clientv3.OpPut(fleetKey(n), "x")); len(puts) == batchRecords {
			if _, err := behind.Txn(t.Context()).Then(puts...).Commit(); err != nil {
				t.Fatal(err)
			}
			puts = nil
		}
	}
	began := time.Now()
	var end time.Time
	sets := make(chan int, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	first := make(chan struct{})
	reader := openStore(t, at(server))
	go func() {
		n := 0
		for snap, err := range reader.Watch(ctx, prefix) {
			if n++; n == 1 {
				close(first)
			}
			if err != nil || len(snap.Records) == records+changes {
				end = time.Now()
				break
			}
		}
		sets <- n
	}()
	<-first
	for n := range changes {
		put(t, writer, fleetKey(records+n), "x", 0)
	}
	n := <-sets
	if ctx.Err() != nil {
		t.Fatalf("the last change was not seen within %v", patient)
	}
	took := end.Sub(began)
	t.Logf("%d sets for %d changes in %v", n, changes, took.Round(time.Millisecond))
	if limit := 2 + int(took/remote.Pace(records)); n > limit {
		t.Errorf("%d sets in %v, want %d at the most", n, took, limit)
	}
}
