package etcd

import (
	"errors"
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/request-migration/migrate/pkg/discovery"
)

func putEvent(key, value string) *mvccpb.Event {
	return &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), ModRevision: 2}}
}

func deleteEvent(key string) *mvccpb.Event {
	return &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: 2}}
}

// listed is what a list has found, at revision 1.
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

	first, other := noAnswer(1), errors.New("refused")
	v.fail(first)
	expect("a failure", true, "b=2 c=1 ")
	v.fail(noAnswer(2))
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
