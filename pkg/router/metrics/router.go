package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/router/receipt"
	"github.com/request-migration/migrate/pkg/stream"
)

// Router is a [prometheus.Collector] that counts the requests of a
// [router.Router] and shows its two tiers. It is safe for concurrent use.
type Router struct {
	began  time.Time // times are kept as durations since then
	router atomic.Pointer[router.Router]
	tiers  tierDescs

	attempts, migrations prometheus.Counter
	trials, stale        prometheus.Counter
	breaks, refusals     *prometheus.CounterVec // by kind
	choices              *prometheus.CounterVec // by step
	requests, migrated   *prometheus.CounterVec // by outcome
	running              prometheus.Gauge
	gap, first           prometheus.Histogram
	duration             *prometheus.HistogramVec // by outcome
}

// New returns a collector for the router of an endpoint, which becomes the
// label endpoint of every metric. The router's config gets Trace, and Watch gets
// the router:
//
//	m := metrics.New(endpoint)
//	r := router.New(router.Config{Endpoint: endpoint, Trace: m.Trace, …})
//	m.Watch(r)
//	prometheus.MustRegister(m)
func New(endpoint discovery.Endpoint) *Router {
	labels := prometheus.Labels{"endpoint": endpoint.String()}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, []string{label})
	}
	m := &Router{
		began:      time.Now(),
		tiers:      newTierDescs(labels),
		attempts:   counter("migrate_router_attempts_total", "Attempts: streams that their instance did not refuse."),
		migrations: counter("migrate_router_migrations_total", "Times that a request went on at another instance after a break."),
		trials:     counter("migrate_router_trials_total", "Requests that tried an instance which was back from a report."),
		stale:      counter("migrate_router_stale_connections_total", "Kept connections that turned out dead and were replaced."),
		choices:    vec("migrate_router_choices_total", "Instances chosen for requests, by why: each step is for requests for which those before it have nobody left.", "step"),
		breaks:     vec("migrate_router_breaks_total", "Streams that broke, by kind.", "kind"),
		refusals:   vec("migrate_router_refusals_total", "Requests that an instance did not take, by kind.", "kind"),
		requests:   vec("migrate_router_requests_total", "Requests that are over, by outcome.", "outcome"),
		migrated:   vec("migrate_router_migrated_requests_total", "Requests that are over and have migrated at least once, by outcome.", "outcome"),
		running: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "migrate_router_requests_in_flight", Help: "Requests that run or wait now.", ConstLabels: labels,
		}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:        "migrate_router_request_duration_seconds",
			Help:        "Time from a request's beginning to its end, by outcome.",
			ConstLabels: labels,
			// From an echo on loopback to the answer of a slow model.
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600},
		}, []string{"outcome"}),
		first: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:        "migrate_router_first_item_seconds",
			Help:        "Time from a request's beginning to its first item, waits and failed attempts included.",
			ConstLabels: labels,
			Buckets:     []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120},
		}),
		gap: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:        "migrate_router_failover_gap_seconds",
			Help:        "Time between the last item before a break and the first item after it.",
			ConstLabels: labels,
			// From a retry on loopback to a stall timeout and a slow first item.
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 30, 60},
		}),
	}
	// A counter that is there from the start shows its first increment as one.
	for _, k := range []stream.Kind{
		stream.Unreachable, stream.Unresponsive, stream.Truncated, stream.Reset, stream.Stalled, stream.Failed,
		stream.Protocol, stream.Local, stream.Draining, stream.Application,
	} {
		m.breaks.WithLabelValues(string(k))
	}
	for _, k := range []stream.Kind{stream.Overloaded, stream.Draining, stream.Misdirected, stream.Unresumable} {
		m.refusals.WithLabelValues(string(k))
	}
	for _, s := range router.Steps() {
		m.choices.WithLabelValues(string(s))
	}
	for _, o := range receipt.Outcomes() {
		m.requests.WithLabelValues(string(o))
		m.migrated.WithLabelValues(string(o))
		m.duration.WithLabelValues(string(o))
	}
	return m
}

// Watch shows the tiers of r from now on, in place of those of a router that
// was watched before. Without it there are none to show.
func (m *Router) Watch(r *router.Router) { m.router.Store(r) }

// Describe implements [prometheus.Collector].
func (m *Router) Describe(descs chan<- *prometheus.Desc) {
	m.tiers.describe(descs)
	for _, c := range m.counted() {
		c.Describe(descs)
	}
}

// Collect implements [prometheus.Collector].
func (m *Router) Collect(metrics chan<- prometheus.Metric) {
	if r := m.router.Load(); r != nil {
		m.tiers.collect(metrics, r.Tiers())
	}
	for _, c := range m.counted() {
		c.Collect(metrics)
	}
}

func (m *Router) counted() []prometheus.Collector {
	return []prometheus.Collector{
		m.attempts, m.migrations, m.trials, m.stale, m.choices, m.breaks, m.refusals, m.requests, m.migrated, m.gap,
		m.running, m.duration, m.first,
	}
}
