package etcd

import (
	"errors"
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/request-migration/migrate/pkg/discovery"
)

func putEvent(key, value string) *mvccpb.Event {
	return &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value)}}
}

func deleteEvent(key string) *mvccpb.Event {
	return &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte(key)}}
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
	v.reset(nil)
	expect("an empty first list", true, "")
	v.apply([]*mvccpb.Event{putEvent("b", "1"), putEvent("a", "1"), putEvent("c", "1"), deleteEvent("x")})
	early := v.take()
	expect("three puts", true, "a=1 b=1 c=1 ")
	v.apply([]*mvccpb.Event{putEvent("b", "2"), deleteEvent("a"), putEvent("d", "1"), deleteEvent("d")})
	expect("changes", true, "b=2 c=1 ")
	v.apply(nil)
	expect("a sign of life", false, "b=2 c=1 ")
	v.reset([]discovery.Record{{Key: "b", Value: []byte("2")}, {Key: "c", Value: []byte("1")}})
	expect("the same list again", false, "b=2 c=1 ")

	first := errors.New("first")
	v.fail(first)
	v.fail(errors.New("second"))
	if got := v.take().Stale; !errors.Is(got, first) {
		t.Errorf("stale because of %v, want the first reason", got)
	}
	expect("a failure", true, "b=2 c=1 ")
	v.reset([]discovery.Record{{Key: "b", Value: []byte("2")}, {Key: "c", Value: []byte("1")}})
	if got := v.take().Stale; got != nil {
		t.Errorf("stale after a list: %v", got)
	}
	expect("the same list after a failure", true, "b=2 c=1 ")
	if got := show(early); got != "a=1 b=1 c=1 " {
		t.Errorf("a set that was taken has become %q", got)
	}
}
