package metrics_test

import (
	"context"
	"io"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/metrics"
)

func TestLint(t *testing.T) {
	problems, err := testutil.CollectAndLint(metrics.New("demo/text/upper", "server1"))
	if len(problems) > 0 || err != nil {
		t.Errorf("promlint: %v, %v", problems, err)
	}
}

func send(stream.Annotated) error { return nil }

// An item allocates nothing, and the total follows a long stream while it runs.
func TestItems(t *testing.T) {
	m := metrics.New("demo/text/upper", "server1")
	handler := m.Handler(func(_ context.Context, _ *stream.Request, send func(stream.Annotated) error) error {
		item := stream.Annotated{Data: stream.String("x")}
		// It makes one more call, to warm up.
		if n := testing.AllocsPerRun(69, func() { _ = send(item) }); n > 0 {
			t.Errorf("an item allocates %v times", n)
		}
		check(t, m, map[string]float64{"streams_in_flight": 1, "items_total": 64})
		return nil
	})
	if err := handler(t.Context(), &stream.Request{}, send); err != nil {
		t.Fatal(err)
	}
	check(t, m, map[string]float64{"streams_total completed": 1, "items_total": 70})
}

// Streams and scrapes may come at once.
func TestConcurrently(t *testing.T) {
	const streams, items = 50, 100
	m := metrics.New("demo/text/upper", "server1")
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	handler := m.Handler(func(_ context.Context, _ *stream.Request, send func(stream.Annotated) error) error {
		for range items {
			if err := send(stream.Annotated{}); err != nil {
				return err
			}
		}
		return nil
	})
	var all sync.WaitGroup
	for range streams {
		all.Go(func() {
			if err := handler(t.Context(), &stream.Request{}, send); err != nil {
				t.Error(err)
			}
			m.Refused(stream.Request{}, io.EOF)
			if _, err := registry.Gather(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	check(t, m, map[string]float64{
		"streams_total completed": streams, "refusals_total application": streams, "items_total": streams * items,
	})
}

func BenchmarkItem(b *testing.B) {
	handler := metrics.New("demo/text/upper", "server1").Handler(func(_ context.Context, _ *stream.Request, send func(stream.Annotated) error) error {
		item := stream.Annotated{Data: stream.String("x")}
		for b.Loop() {
			_ = send(item)
		}
		return nil
	})
	if err := handler(b.Context(), &stream.Request{}, send); err != nil {
		b.Fatal(err)
	}
}
