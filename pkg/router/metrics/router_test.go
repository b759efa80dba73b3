package metrics_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/router/metrics"
	"github.com/request-migration/migrate/pkg/router/receipt"
	"github.com/request-migration/migrate/pkg/stream"
)

// A request is refused by one server, breaks on two, is handed back by one, and
// completes on the last.
func TestFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := servers{
			"full":   {0, broken(stream.Overloaded)},
			"dead":   {0, broken(stream.Unreachable)},
			"broken": {2, broken(stream.Truncated)},
			"leaves": {3, broken(stream.Draining)},
			"sound":  {4, nil},
		}
		r, m := start(t, client, instance(1, "full"), instance(2, "dead"), instance(3, "broken"), instance(4, "leaves"), instance(5, "sound"))
		synctest.Wait()
		check(t, m, map[string]float64{"instances_source": 5, "instances_avail": 5})
		var recorder receipt.Recorder
		for _, err := range r.Do(t.Context(), router.Request{Data: stream.String("hello"), Trace: recorder.Trace()}) {
			if err != nil {
				t.Fatal(err)
			}
		}
		want := map[string]float64{
			"choices_total avail":              5,
			"attempts_total":                   4, // not that which was refused
			"migrations_total":                 3,
			"refusals_total overloaded":        1,
			"breaks_total unreachable":         1,
			"breaks_total truncated":           1,
			"breaks_total draining":            1,
			"requests_total success":           1,
			"migrated_requests_total success":  1,
			"failover_gap_seconds":             2, // none before the first item
			"first_item_seconds":               1,
			"request_duration_seconds success": 4,
			"instances_source":                 5,
			"instances_avail":                  3,
			"instances_down":                   2,
		}
		check(t, m, want)
		// The receipt counts the same.
		account := recorder.Receipt()
		if len(account.Attempts) != 4 || len(account.Refusals) != 1 || account.Migrations() != 3 || len(account.GapsMS) != 2 {
			t.Errorf("receipt: %+v", account)
		}

		time.Sleep(router.DefaultCooldown)
		synctest.Wait()
		delete(want, "instances_down")
		want["instances_avail"], want["instances_half_open"] = 5, 2
		check(t, m, want)
	})
}

func TestOutcomes(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tt := range map[string]struct {
		ctx    context.Context
		client servers
		want   map[string]float64
	}{
		"application": {t.Context(), servers{"a": {1, broken(stream.Application)}}, map[string]float64{
			"choices_total avail": 1, "attempts_total": 1, "breaks_total application": 1, "requests_total application": 1,
			"instances_source": 2, "instances_avail": 2, "first_item_seconds": 1, "request_duration_seconds application": 1,
		}},
		// The second fails, too, and no third is there.
		"no instances": {t.Context(), servers{"a": {1, broken(stream.Reset)}, "b": {1, broken(stream.Stalled)}}, map[string]float64{
			"choices_total avail": 2, "attempts_total": 2, "migrations_total": 1, "breaks_total reset": 1, "breaks_total stalled": 1,
			"requests_total no_instances": 1, "migrated_requests_total no_instances": 1,
			"instances_source": 2, "instances_down": 2, "first_item_seconds": 1, "request_duration_seconds no_instances": 1,
		}},
		"cancelled": {cancelled, servers{"a": {0, cancelled.Err()}}, map[string]float64{
			"requests_total cancelled": 1, "instances_source": 2, "instances_avail": 2,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, m := start(t, tt.client, instance(1, "a"), instance(2, "b"))
				synctest.Wait()
				if ask(tt.ctx, r) == nil {
					t.Error("the request succeeded")
				}
				check(t, m, tt.want)
			})
		})
	}
}

// A request is in flight until its caller leaves, which is an outcome.
func TestLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m := start(t, servers{"a": {3, nil}}, instance(1, "a"))
		for _, err := range r.Do(t.Context(), router.Request{Data: stream.String("hello")}) {
			if err != nil {
				t.Fatal(err)
			}
			if n := gathered(t, m)["requests_in_flight"]; n != 1 {
				t.Errorf("%v requests are in flight", n)
			}
			break
		}
		check(t, m, map[string]float64{
			"requests_total left": 1, "attempts_total": 1, "choices_total avail": 1, "first_item_seconds": 1,
			"request_duration_seconds left": 1, "instances_source": 1, "instances_avail": 1,
		})
	})
}

// The gauges show an instance that backs off, one that is half-open, and those that
// discovery has lost at once.
func TestSparing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lists := make(chan []discovery.Instance, 2)
		lists <- []discovery.Instance{instance(1, "full"), instance(2, "broken")}
		source := watcher(func(ctx context.Context, yield func(discovery.Instances, error) bool) {
			for ctx.Err() == nil {
				select {
				case list := <-lists:
					yield(discovery.Instances{List: list}, nil)
				case <-ctx.Done():
				}
			}
		})
		m := metrics.New(endpoint)
		client := servers{"full": {0, broken(stream.Overloaded)}, "broken": {1, broken(stream.Failed)}}
		r := router.New(router.Config{Endpoint: endpoint, Source: source, Client: client, Picker: inOrder{}, Trace: m.Trace, Cooldown: time.Second})
		t.Cleanup(r.Close)
		m.Watch(r)
		if ask(t.Context(), r) == nil {
			t.Error("the request succeeded")
		}
		want := func(want map[string]float64) {
			t.Helper()
			synctest.Wait()
			got := gathered(t, m)
			for key, n := range want {
				if got[key] != n {
					t.Errorf("%s is %v, want %v", key, got[key], n)
				}
			}
		}
		// A second has passed before the break, so that full no longer backs off.
		want(map[string]float64{"instances_down": 1, "choices_total avail": 2, "refusals_total overloaded": 1})
		if ask(t.Context(), r) == nil {
			t.Error("the request succeeded")
		}
		want(map[string]float64{"instances_backing_off": 1, "trials_total": 0})
		time.Sleep(2 * time.Second)
		want(map[string]float64{"instances_backing_off": 0, "instances_half_open": 1})
		if ask(t.Context(), r) == nil {
			t.Error("the request succeeded")
		}
		want(map[string]float64{"trials_total": 1})
		lists <- nil
		want(map[string]float64{"instances_source": 0, "instances_lost": 2})
	})
}

// Without a router there are no gauges of tiers; with one, they show a stale source.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := metrics.New(endpoint)
		if n := testutil.CollectAndCount(m, "migrate_router_instances_source", "migrate_router_source_stale"); n != 0 {
			t.Errorf("there are %d", n)
		}
		r := router.New(router.Config{
			Client: servers{},
			Source: watcher(func(_ context.Context, yield func(discovery.Instances, error) bool) {
				yield(discovery.Instances{}, errors.New("the store is away"))
			}),
		})
		defer r.Close()
		m.Watch(r)
		synctest.Wait()
		check(t, m, map[string]float64{"source_stale": 1})
	})
}

func TestLint(t *testing.T) {
	_, m := start(t, servers{}, instance(1, "a"))
	problems, err := testutil.CollectAndLint(m)
	if len(problems) > 0 || err != nil {
		t.Errorf("promlint: %v, %v", problems, err)
	}
}

// One registry takes the collectors of several endpoints.
func TestEndpoints(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics.New(endpoint), metrics.New(discovery.Endpoint{Namespace: "dynamo", Component: "backend", Name: "embed"}))
	if _, err := registry.Gather(); err != nil {
		t.Error(err)
	}
}

// Requests and scrapes may come at once.
func TestConcurrently(t *testing.T) {
	const requests = 200
	synctest.Test(t, func(t *testing.T) {
		r, m := start(t, servers{"a": {2, broken(stream.Failed)}, "b": {5, nil}}, instance(1, "a"), instance(2, "b"))
		var all sync.WaitGroup
		for range requests {
			all.Go(func() {
				if err := ask(t.Context(), r); err != nil {
					t.Error(err)
				}
			})
			all.Go(func() { gathered(t, m) })
		}
		all.Wait()
		got := gathered(t, m)
		for key, want := range map[string]float64{
			"requests_total success": requests, "migrations_total": got["breaks_total failed"],
			"attempts_total": requests + got["breaks_total failed"], "failover_gap_seconds": got["breaks_total failed"],
		} {
			if got[key] != want || want == 0 {
				t.Errorf("%s is %v, want %v", key, got[key], want)
			}
		}
	})
}
