package metrics_test

import (
	"context"
	"iter"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/router/metrics"
	"github.com/request-migration/migrate/pkg/stream"
)

var endpoint = discovery.Endpoint{Namespace: "dynamo", Component: "backend", Name: "generate"}

func instance(id discovery.InstanceID, name string) discovery.Instance {
	return discovery.Instance{ID: id, Name: name, Endpoint: endpoint, Transport: discovery.NDJSON, Address: name}
}

// servers is a [router.Client]: servers by their addresses, which are their names.
// Each sends its number of items, one a second, then ends with its error.
type servers map[string]server

type server struct {
	items int
	err   error
}

func (s servers) Stream(_ context.Context, i discovery.Instance, req stream.Request) iter.Seq2[stream.Annotated, error] {
	addr := i.Address
	return func(yield func(stream.Annotated, error) bool) {
		for i := req.From; i < s[addr].items; i++ {
			time.Sleep(time.Second)
			if !yield(stream.Annotated{Data: stream.String("x")}, nil) {
				return
			}
		}
		if err := s[addr].err; err != nil {
			yield(stream.Annotated{}, err)
		}
	}
}

// watcher is a [router.Source].
type watcher func(ctx context.Context, yield func(discovery.Instances, error) bool)

func (w watcher) Watch(ctx context.Context, _ discovery.Endpoint) iter.Seq2[discovery.Instances, error] {
	return func(yield func(discovery.Instances, error) bool) { w(ctx, yield) }
}

func broken(kind stream.Kind) error { return &stream.Break{Kind: kind, Reason: "as told"} }

// start returns a router that goes to instances in the order given, and its
// collector.
func start(t *testing.T, client router.Client, list ...discovery.Instance) (*router.Router, *metrics.Router) {
	t.Helper()
	m := metrics.New(endpoint)
	r := router.New(router.Config{
		Endpoint: endpoint, Source: discovery.Static(list...), Client: client,
		Picker: inOrder{}, Trace: m.Trace,
	})
	t.Cleanup(r.Close)
	m.Watch(r)
	return r, m
}

type inOrder struct{}

func (inOrder) Pick(_ router.Choice, avail []*router.Peer) *router.Peer { return avail[0] }

// ask makes a request and returns how it ended.
func ask(ctx context.Context, r *router.Router) error {
	for _, err := range r.Do(ctx, router.Request{Data: stream.String("hello")}) {
		if err != nil {
			return err
		}
	}
	return nil
}

// gathered returns the values of all that m has, by name and label; of the
// histogram, its sum. Zeros are left out.
func gathered(t *testing.T, m *metrics.Router) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, metric := range f.GetMetric() {
			key := strings.TrimPrefix(f.GetName(), "migrate_router_")
			for _, l := range metric.GetLabel() {
				switch {
				case l.GetName() != "endpoint":
					key += " " + l.GetValue()
				case l.GetValue() != endpoint.String():
					t.Errorf("%s: the endpoint is %q", f.GetName(), l.GetValue())
				}
			}
			got[key] = metric.GetCounter().GetValue() + metric.GetGauge().GetValue() + metric.GetHistogram().GetSampleSum()
		}
	}
	maps.DeleteFunc(got, func(_ string, v float64) bool { return v == 0 })
	return got
}

func check(t *testing.T, m *metrics.Router, want map[string]float64) {
	t.Helper()
	if got := gathered(t, m); !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}
