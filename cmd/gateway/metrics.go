package gateway

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/request-migration/migrate/pkg/gateway"
)

// metrics are those of the gateway's requests.
type metrics struct {
	registry   *prometheus.Registry
	requests   *prometheus.CounterVec // by model, status
	migrations *prometheus.CounterVec // by model, kind, way
	fallbacks  *prometheus.CounterVec // by the model that was asked for
	tokens     *prometheus.CounterVec // by model, which
	firstItem  *prometheus.HistogramVec
	duration   *prometheus.HistogramVec
}

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "migrate_gateway_" + name, Help: help}, labels)
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "migrate_gateway_" + name, Help: help, Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300},
		}, []string{"model"})
	}
	m := &metrics{
		registry:   prometheus.NewRegistry(),
		requests:   counter("requests_total", "Requests that are over, by the model that answered and the status.", "model", "status"),
		migrations: counter("migrations_total", "Times that an answer went on at another instance, by the kind of the break and the way.", "model", "kind", "way"),
		fallbacks:  counter("fallbacks_total", "Times that another model was asked, by the one that answered last.", "model"),
		tokens:     counter("tokens_total", "Tokens of questions (in), of answers (out), and those that were thrown away.", "model", "which"),
		firstItem:  histogram("first_item_seconds", "Time from a request to the first of its answer."),
		duration:   histogram("request_seconds", "Time from a request to its end."),
	}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.requests, m.migrations, m.fallbacks, m.tokens, m.firstItem, m.duration)
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 8})
}

// done counts a request that is over.
func (m *metrics) done(e *gateway.Entry) {
	m.requests.WithLabelValues(e.Model, strconv.Itoa(e.Status)).Inc()
	for _, one := range e.Migrations {
		m.migrations.WithLabelValues(e.Model, one.Kind, one.Way).Inc()
	}
	if e.Fallbacks > 0 {
		m.fallbacks.WithLabelValues(e.Model).Add(float64(e.Fallbacks))
	}
	for which, n := range map[string]int{"in": e.TokensIn, "out": e.TokensOut, "thrown_away": e.Wasted} {
		m.tokens.WithLabelValues(e.Model, which).Add(float64(n))
	}
	if e.FirstItem > 0 {
		m.firstItem.WithLabelValues(e.Model).Observe(e.FirstItem.Seconds())
	}
	m.duration.WithLabelValues(e.Model).Observe(e.Took.Seconds())
}
