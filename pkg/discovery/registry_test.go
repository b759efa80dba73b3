package discovery_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

func instance(id discovery.InstanceID) discovery.Instance {
	return discovery.Instance{ID: id, Name: "s", Endpoint: endpoint(), Transport: discovery.NDJSON, Address: "127.0.0.1:1"}
}

func register(t *testing.T, r *discovery.Registry, i discovery.Instance) discovery.Lease {
	t.Helper()
	_, lease, err := r.Register(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	return lease
}

func ids(set discovery.Instances) string {
	var ids []string
	for _, i := range set.List {
		ids = append(ids, i.ID.String())
	}
	return strings.Join(ids, " ")
}

func TestRegistryWatch(t *testing.T) {
	m := new(discovery.Mem)
	r := discovery.NewRegistry(m, nil)
	ctx, cancel := context.WithCancel(t.Context())
	next, stop := iter.Pull2(r.Watch(ctx, endpoint()))
	defer stop()
	expect := func(want string) {
		t.Helper()
		set, err, ok := next()
		if err != nil || !ok || ids(set) != want || set.Stale != nil {
			t.Errorf("got %q, %v, %v, stale %v, want %q", ids(set), err, ok, set.Stale, want)
		}
	}
	expect("")
	first := register(t, r, instance(0x20))
	expect("20")
	// They are sorted by number. By key 100 would come first.
	register(t, r, instance(0x100))
	expect("20 100")
	elsewhere := instance(1)
	elsewhere.Endpoint.Name = "generate2"
	register(t, r, elsewhere)
	for range 2 {
		if err := first.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	expect("100")
	changed := instance(0x100)
	changed.Address, changed.Incarnation = "127.0.0.1:2", "2"
	register(t, r, changed)
	set, err, _ := next()
	if err != nil || len(set.List) != 1 || set.List[0] != changed {
		t.Errorf("got %+v, %v, want %+v", set, err, changed)
	}
	cancel()
	if _, err, ok := next(); !ok || !errors.Is(err, context.Canceled) {
		t.Errorf("the watch ended with %v, %v, want %v", err, ok, context.Canceled)
	}
	if _, _, ok := next(); ok {
		t.Error("the watch went on after its error")
	}
	if set, err := r.List(t.Context(), endpoint()); err != nil || ids(set) != "100" {
		t.Errorf("List is %q, %v", ids(set), err)
	}
}

func TestRegistryErrors(t *testing.T) {
	m := new(discovery.Mem)
	r := discovery.NewRegistry(m, nil)
	if _, err := r.List(t.Context(), discovery.Endpoint{Namespace: "a"}); err == nil {
		t.Error("List takes any endpoint")
	}
	if _, _, err := r.Register(t.Context(), discovery.Instance{}); err == nil {
		t.Error("Register takes any instance")
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.List(t.Context(), endpoint()); !errors.Is(err, discovery.ErrClosed) {
		t.Errorf("List from a closed store: %v", err)
	}
	if _, _, err := r.Register(t.Context(), instance(1)); !errors.Is(err, discovery.ErrClosed) {
		t.Errorf("Register with a closed store: %v", err)
	}
}

// A flaky store yields the given pairs.
type flaky struct {
	*discovery.Mem
	pairs []discovery.Snapshot
}

func (f flaky) Watch(context.Context, string) iter.Seq2[discovery.Snapshot, error] {
	return func(yield func(discovery.Snapshot, error) bool) {
		for _, snap := range f.pairs {
			if !yield(snap, nil) {
				return
			}
		}
		yield(discovery.Snapshot{}, discovery.ErrClosed)
	}
}

func TestRegistryPassesStale(t *testing.T) {
	key, value, err := discovery.EncodeInstance(instance(1))
	if err != nil {
		t.Fatal(err)
	}
	records := []discovery.Record{{Key: key, Value: value}}
	outage := errors.New("no store")
	r := discovery.NewRegistry(flaky{pairs: []discovery.Snapshot{{Records: records}, {Records: records, Stale: outage}, {Records: records}}}, nil)
	var got []string
	for set, err := range r.Watch(t.Context(), endpoint()) {
		got = append(got, fmt.Sprint(ids(set), " ", set.Stale, " ", err))
	}
	want := []string{
		"1 <nil> <nil>", "1 no store <nil>", "1 <nil> <nil>",
		" <nil> watching dynamo/backend/generate: store is closed",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRegistryWarnsOnce(t *testing.T) {
	var out bytes.Buffer
	m := new(discovery.Mem)
	r := discovery.NewRegistry(m, slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn})))
	register(t, r, instance(1))
	put := func(key, value string) {
		t.Helper()
		if _, err := m.Put(t.Context(), key, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	warnings := func(want int) {
		t.Helper()
		for range 2 {
			if set, err := r.List(t.Context(), endpoint()); err != nil || ids(set) != "1" {
				t.Errorf("got %q, %v", ids(set), err)
			}
		}
		if n := strings.Count(out.String(), "skipping a record"); n != want {
			t.Errorf("%d warnings, want %d:\n%s", n, want, &out)
		}
	}
	warnings(0)
	put(generate+"2", "bad")
	put(generate+"3/lora", "{}")
	warnings(2)
	put(generate+"2", "worse")
	warnings(3)
	// The number of warnings is bounded.
	for n := range 3000 {
		put(fmt.Sprintf("%sx%d", generate, n), "bad")
	}
	for range 2 {
		if _, err := r.List(t.Context(), endpoint()); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(out.String(), "skipping a record"); n > 1500 {
		t.Errorf("%d warnings", n)
	}
}

func TestRegistryLogs(t *testing.T) {
	var out bytes.Buffer
	r := discovery.NewRegistry(new(discovery.Mem), slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	lease := register(t, r, instance(0x4d2))
	if _, err := r.List(t.Context(), endpoint()); err != nil {
		t.Fatal(err)
	}
	if err := lease.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`msg="registered instance" endpoint=dynamo/backend/generate id=4d2 name=s`,
		`msg="snapshot of instances" endpoint=dynamo/backend/generate instances=1`,
		`msg="released instance" endpoint=dynamo/backend/generate id=4d2`,
	} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("no line %s in\n%s", line, &out)
		}
	}
}

func TestRegistryConcurrently(t *testing.T) {
	r := discovery.NewRegistry(new(discovery.Mem), nil)
	ctx, cancel := context.WithCancel(t.Context())
	var owners, watchers sync.WaitGroup
	for range 2 {
		watchers.Go(func() {
			for set, err := range r.Watch(ctx, endpoint()) {
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				_ = ids(set)
			}
		})
	}
	for n := range 8 {
		owners.Go(func() {
			for range 20 {
				_, lease, err := r.Register(ctx, instance(discovery.InstanceID(n)))
				if err != nil {
					t.Error(err)
					return
				}
				if err := lease.Release(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	owners.Wait()
	if set, err := r.List(ctx, endpoint()); err != nil || len(set.List) != 0 {
		t.Errorf("left is %q, %v", ids(set), err)
	}
	cancel()
	watchers.Wait()
}

// TestListIsSortedByID has ids of every number of digits.
func TestListIsSortedByID(t *testing.T) {
	r := discovery.NewRegistry(new(discovery.Mem), nil)
	want := []discovery.InstanceID{1, 15, 16, 17, 255, 256, 4095, 1 << 52, 1<<53 - 1, 1 << 63, 1<<64 - 1}
	for _, id := range want {
		register(t, r, instance(id))
	}
	set, err := r.List(t.Context(), endpoint())
	if err != nil {
		t.Fatal(err)
	}
	got := make([]discovery.InstanceID, 0, len(set.List))
	for _, i := range set.List {
		got = append(got, i.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestStaticRefuses(t *testing.T) {
	none := instance(3)
	none.Transport = ""
	nowhere := instance(4)
	nowhere.Address = ""
	for _, tt := range []struct {
		name string
		list []discovery.Instance
		want string
	}{
		{"equal ids", []discovery.Instance{instance(1), instance(2), instance(1)}, "have the same ID, 1"},
		{"no transport", []discovery.Instance{none}, "has no Transport; for servers of package stream it is discovery.NDJSON"},
		{"no address", []discovery.Instance{instance(1), nowhere}, "has no Address"},
	} {
		for set, err := range discovery.Static(tt.list...).Watch(t.Context(), endpoint()) {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %+v, %v, want an error with %q", tt.name, set.List, err, tt.want)
			}
		}
	}
}

func TestStatic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		static := discovery.Static(instance(2), instance(1))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		n := 0
		for set, err := range static.Watch(ctx, endpoint()) {
			switch n++; n {
			case 1:
				if err != nil || ids(set) != "1 2" || time.Since(began) != 0 {
					t.Errorf("after %v: %q, %v", time.Since(began), ids(set), err)
				}
			case 2:
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Minute {
					t.Errorf("after %v: %q, %v", time.Since(began), ids(set), err)
				}
			}
		}
		if n != 2 {
			t.Errorf("%d pairs, want 2", n)
		}
		for _, err := range static.Watch(t.Context(), endpoint()) {
			if err != nil {
				t.Error(err)
			}
			break // ends it
		}
	})
}

// BenchmarkOneOfMany measures what one instance that joins costs a watch of 10,000.
func BenchmarkOneOfMany(b *testing.B) {
	m := new(discovery.Mem)
	r := discovery.NewRegistry(m, nil)
	for id := range 10_000 {
		if _, _, err := r.Register(b.Context(), instance(discovery.InstanceID(id))); err != nil {
			b.Fatal(err)
		}
	}
	next, stop := iter.Pull2(r.Watch(b.Context(), endpoint()))
	defer stop()
	expect := func(n int) {
		if set, err, _ := next(); err != nil || len(set.List) != n {
			b.Fatalf("%d instances, %v, want %d", len(set.List), err, n)
		}
	}
	expect(10_000)
	b.ReportAllocs()
	for b.Loop() {
		_, lease, err := r.Register(b.Context(), instance(1<<40))
		if err != nil {
			b.Fatal(err)
		}
		expect(10_001)
		if err := lease.Release(b.Context()); err != nil {
			b.Fatal(err)
		}
		expect(10_000)
	}
}

// TestRegisterFillsIn registers instances without ids, which stay apart, and returns them as
// they stand.
func TestRegisterFillsIn(t *testing.T) {
	r := discovery.NewRegistry(new(discovery.Mem), nil)
	var want []discovery.Instance
	for range 3 {
		i, _, err := r.Register(t.Context(), instance(0))
		if err != nil {
			t.Fatal(err)
		}
		if i.ID == 0 || i.Incarnation == "" {
			t.Errorf("it stands as %+v", i)
		}
		want = append(want, i)
	}
	slices.SortFunc(want, func(a, b discovery.Instance) int { return cmp.Compare(a.ID, b.ID) })
	set, err := r.List(t.Context(), endpoint())
	if err != nil || !slices.Equal(set.List, want) {
		t.Errorf("listed are %v, %v, want %v", set.List, err, want)
	}
}

// TestRegisterRefusesUnspecified refuses addresses to which nobody can connect. Those of
// other transports are not ours to judge.
func TestRegisterRefusesUnspecified(t *testing.T) {
	r := discovery.NewRegistry(new(discovery.Mem), nil)
	for address, want := range map[string]string{
		"0.0.0.0:1": "is every address", "[::]:1": "is every address", ":1": "is every address",
		"[::%eth0]:1": "is every address", "localhost": "is not HOST:PORT",
	} {
		i := instance(7)
		i.Address = address
		if _, _, err := r.Register(t.Context(), i); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
		i.Transport = "tcp"
		if _, lease, err := r.Register(t.Context(), i); err != nil {
			t.Errorf("%s of another transport: %v", address, err)
		} else if err := lease.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for _, address := range []string{"127.0.0.1:1", "[::1]:1", "a.example:1"} {
		i := instance(7)
		i.Address = address
		if _, _, err := r.Register(t.Context(), i); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}
