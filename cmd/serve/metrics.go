package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/request-migration/migrate/cmd/internal/cli"
	"github.com/request-migration/migrate/pkg/stream/metrics"
)

// The bounds of a scrape.
const (
	scrapeReadTimeout  = 5 * time.Second  // for a request of a few lines
	scrapeWriteTimeout = 10 * time.Second // Prometheus' own default timeout
	scrapeIdleTimeout  = 3 * time.Minute  // more than a scrape interval, to keep connections
	maxScrapes         = 8                // at once; one or two Prometheus servers are usual
	lastScrape         = time.Second      // for a scrape that runs when the server ends
)

// metricsServer serves /metrics. A nil one serves nothing.
type metricsServer struct {
	backend *metrics.Server
	http    http.Server
	serving sync.WaitGroup
	err     error // of serving; read after serving ended
}

// metricsAddress checks the address that metrics are served on. Without a host it is a
// loopback address, so that only this machine sees them.
func metricsAddress(listen string) (string, error) {
	host, port, err := cli.SplitAddress(listen, 0)
	if err != nil {
		return "", err
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// startMetrics serves the metrics of a backend that starts later. Without an address it
// returns nil.
func startMetrics(ctx context.Context, c cli.Common, listen, endpoint, name string) (*metricsServer, error) {
	if listen == "" {
		return nil, nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
	if err != nil {
		return nil, fmt.Errorf("listening for metrics on %s: %w; choose another address with --metrics-listen, or port 0 for any free one", listen, err)
	}
	log := c.Logs.For("serve")
	errorLog := slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	m := &metricsServer{backend: metrics.New(endpoint, name)}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registry.MustRegister(m.backend)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: errorLog, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes,
	}))
	m.http = http.Server{
		Handler: mux, ErrorLog: errorLog, MaxHeaderBytes: 16 << 10, // room for a proxy's cookies
		ReadTimeout: scrapeReadTimeout, WriteTimeout: scrapeWriteTimeout, IdleTimeout: scrapeIdleTimeout,
	}
	m.serving.Go(func() { m.err = m.http.Serve(l) })
	log.Info("Serving metrics", "url", "http://"+l.Addr().String()+"/metrics")
	return m, nil
}

// stop ends the server, waits for it, and returns why it failed.
func (m *metricsServer) stop() error {
	if m == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastScrape)
	defer cancel()
	err := m.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = m.http.Close() // too slow to wait for
	}
	m.serving.Wait()
	if !errors.Is(m.err, http.ErrServerClosed) {
		err = errors.Join(err, m.err)
	}
	if err != nil {
		return fmt.Errorf("serving metrics: %w", err)
	}
	return nil
}
