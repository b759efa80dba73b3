package metrics_test

import (
	"context"
	"errors"
	"maps"
	"net"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/metrics"
)

// counted is a server on a loopback socket, with a client of its own.
type counted struct {
	m      *metrics.Server
	server *stream.Server
	client *stream.Client
	addr   string
}

// serve counts what s does until the end of the test, or earlier.
func serve(t *testing.T, s *stream.Server) *counted {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &counted{m: metrics.New("demo/text/upper", "server1"), server: s, client: &stream.Client{}, addr: l.Addr().String()}
	s.Handler, s.Refused = c.m.Handler(s.Handler), c.m.Refused
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		c.client.Close()
		s.Close()
		if err := <-done; !errors.Is(err, stream.ErrClosed) {
			t.Errorf("Serve returned %v, want ErrClosed", err)
		}
	})
	return c
}

// ask makes a request and leaves it after that many items.
func (c *counted) ask(ctx context.Context, req stream.Request, leaveAfter int) error {
	for _, err := range c.client.Stream(ctx, c.addr, req) {
		if err != nil {
			return err
		}
		if leaveAfter--; leaveAfter == 0 {
			return nil
		}
	}
	return nil
}

// gathered returns all values of m by name and label, and the sum of the
// histogram. Zeros are left out.
func gathered(t *testing.T, m *metrics.Server) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		name := strings.TrimPrefix(f.GetName(), "migrate_server_")
		for _, metric := range f.GetMetric() {
			key := name
			labels := map[string]string{}
			for _, l := range metric.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["endpoint"] != "demo/text/upper" || labels["server"] != "server1" {
				t.Errorf("%s has the labels %v", name, labels)
			}
			for _, label := range []string{"outcome", "reason"} {
				if value := labels[label]; value != "" {
					key += " " + value
				}
			}
			got[key] = metric.GetCounter().GetValue() + metric.GetGauge().GetValue() + metric.GetHistogram().GetSampleSum()
		}
	}
	maps.DeleteFunc(got, func(_ string, v float64) bool { return v == 0 })
	return got
}

// check compares all values of m but the times.
func check(t *testing.T, m *metrics.Server, want map[string]float64) {
	t.Helper()
	got := gathered(t, m)
	delete(got, "first_item_seconds")
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func text(s string) stream.Request { return stream.Request{Data: stream.String(s)} }

// endless sends items until that fails.
func endless(_ context.Context, _ *stream.Request, send func(stream.Annotated) error) error {
	for {
		if err := send(stream.Annotated{Data: stream.String("x")}); err != nil {
			return err
		}
	}
}

// patient sends an item and waits for the end of its context.
func patient(ctx context.Context, _ *stream.Request, send func(stream.Annotated) error) error {
	if err := send(stream.Annotated{Data: stream.String("x")}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}
