package metrics

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/request-migration/migrate/pkg/stream"
)

// The values of the label outcome.
const (
	completed   = "completed"
	failed      = "failed"      // in the handler: the client carries on elsewhere
	application = "application" // the request itself failed
	cancelled   = "cancelled"   // by the client, or with the connection or the server
	handedBack  = "handed_back" // by a server that is leaving, or whose client does not read
	refused     = "refused"     // by the handler, before its first item
)

// The values of the label reason; failed (by an injected fault) and application
// are two more.
const (
	overloaded  = "overloaded"
	draining    = "draining"
	misdirected = "misdirected"
	unresumable = "unresumable"
)

// step is how many items a stream sends before it adds them to the total: few
// enough for the total not to lag behind a stream of tokens, and enough for
// many streams on many processors not to fight over one counter.
const step = 32

// Server is a [prometheus.Collector] that counts the streams of one
// [stream.Server], or of several together. Set the server's Handler and Refused
// to those of s, and register s. It is safe for concurrent use.
type Server struct {
	streams   *prometheus.CounterVec // by outcome
	refusals  *prometheus.CounterVec // by reason
	items     prometheus.Counter
	inFlight  prometheus.Gauge
	firstItem prometheus.Histogram
}

// New returns a collector with all counts at 0. Its metrics have the labels endpoint and
// server: what is served, as namespace/component/endpoint, and the name of the server.
func New(endpoint, server string) *Server {
	labels := prometheus.Labels{"endpoint": endpoint, "server": server}
	s := &Server{
		streams: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name:        "migrate_server_streams_total",
			ConstLabels: labels,
			Help:        "Streams that have ended, by how they ended.",
		}, []string{"outcome"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name:        "migrate_server_refusals_total",
			ConstLabels: labels,
			Help:        "Requests that were not taken, by reason.",
		}, []string{"reason"}),
		items: prometheus.NewCounter(prometheus.CounterOpts{
			Name:        "migrate_server_items_total",
			ConstLabels: labels,
			Help:        "Items sent. Each running stream may have sent up to 31 more.",
		}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name:        "migrate_server_streams_in_flight",
			ConstLabels: labels,
			Help:        "Streams whose handler runs now.",
		}),
		firstItem: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:        "migrate_server_first_item_seconds",
			ConstLabels: labels,
			Help:        "Time from a handler's start to its first item.",
			// From an echo to a model with a long prompt to read.
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}),
	}
	// A counter that exists from the start shows its first increment as one.
	for _, outcome := range []string{completed, failed, application, cancelled, handedBack, refused} {
		s.streams.WithLabelValues(outcome)
	}
	for _, reason := range []string{overloaded, draining, misdirected, unresumable, failed, application} {
		s.refusals.WithLabelValues(reason)
	}
	return s
}

// Describe implements [prometheus.Collector].
func (s *Server) Describe(descs chan<- *prometheus.Desc) {
	for _, c := range s.collectors() {
		c.Describe(descs)
	}
}

// Collect implements [prometheus.Collector].
func (s *Server) Collect(metrics chan<- prometheus.Metric) {
	for _, c := range s.collectors() {
		c.Collect(metrics)
	}
}

func (s *Server) collectors() []prometheus.Collector {
	return []prometheus.Collector{s.streams, s.refusals, s.items, s.inFlight, s.firstItem}
}

// Refused counts a request that was not taken. It is for
// [stream.Server.Refused].
func (s *Server) Refused(_ stream.Request, err error) {
	reason := application
	switch {
	case errors.Is(err, stream.ErrOverloaded):
		reason = overloaded
	case errors.Is(err, stream.ErrDraining):
		reason = draining
	case errors.Is(err, stream.Misdirected):
		reason = misdirected
	case errors.Is(err, stream.ErrUnresumable):
		reason = unresumable
	case errors.Is(err, stream.ErrFailed):
		reason = failed
	}
	s.refusals.WithLabelValues(reason).Inc()
}

// Handler returns a handler that answers like h and is counted. An item costs
// an increment of a variable of its stream.
func (s *Server) Handler(h stream.Handler) stream.Handler {
	return func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		s.inFlight.Inc()
		defer s.inFlight.Dec()
		c := call{s: s, send: send, began: time.Now()}
		outcome := application // if the handler panics
		defer func() {
			s.items.Add(float64(c.sent % step))
			s.streams.WithLabelValues(outcome).Inc()
		}()
		err := h(ctx, req, c.item)
		outcome = c.outcome(ctx, err)
		return err
	}
}

// call is one stream. It belongs to the goroutine that sends.
type call struct {
	s     *Server
	send  func(stream.Annotated) error
	began time.Time
	sent  int   // items
	err   error // why the latest item was not sent
}

// item sends an item.
func (c *call) item(a stream.Annotated) error {
	if c.sent == 0 && c.err == nil {
		c.s.firstItem.Observe(time.Since(c.began).Seconds())
	}
	if c.err = c.send(a); c.err != nil {
		return c.err
	}
	if c.sent++; c.sent%step == 0 {
		c.s.items.Add(step)
	}
	return nil
}

// outcome returns how a stream ended whose handler returned err.
func (c *call) outcome(ctx context.Context, err error) string {
	cause := context.Cause(ctx)
	switch {
	// What ended the stream before its handler comes first: the client no longer
	// hears of err.
	case errors.Is(cause, stream.ErrDraining):
		return handedBack
	case cause != nil, errors.Is(c.err, context.Canceled):
		return cancelled
	case err == nil:
		return completed
	case errors.Is(err, stream.ErrDraining):
		return handedBack
	case errors.Is(err, stream.ErrOverloaded), errors.Is(err, stream.ErrUnresumable):
		if c.sent == 0 {
			return refused
		}
		return failed // it is too late to refuse
	case errors.Is(err, stream.ErrFailed):
		return failed
	}
	return application
}
