package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/fault"
	"github.com/request-migration/migrate/pkg/stream/metrics"
)

// backend is a server of the endpoint in this process: listening, then
// registered.
type backend struct {
	instance discovery.Instance
	server   *stream.Server
	lease    discovery.Lease
	serving  sync.WaitGroup
	err      error // of serving; read after serving ended
}

// backendConfig says what a backend serves, and where.
type backendConfig struct {
	name       string
	listen     string
	advertise  string
	handler    stream.Handler
	fault      fault.Fault
	maxStreams int
	maxRequest int // bytes of a request's line; 0 is the default
	farewell   time.Duration
	metrics    *metrics.Server // nil: nobody asks
}

// startBackend listens, serves and registers.
func startBackend(ctx context.Context, c common, store discovery.Store, cfg backendConfig) (*backend, error) {
	log := c.logs.For("serve")
	cfg.fault.Notify = func(f fault.Fault) {
		log.Info(faultText(f, cfg.name))
	}
	injector := fault.Inject(cfg.handler, cfg.fault)
	b := &backend{server: &stream.Server{
		Handler:    injector.Handle,
		Admit:      injector.Admit,
		Resumes:    true,
		MaxStreams: cfg.maxStreams,
		MaxRequest: cfg.maxRequest,
		Farewell:   cfg.farewell,
		Logger:     c.logs.For("stream"),
	}}
	if cfg.metrics != nil {
		b.server.Handler, b.server.Refused = cfg.metrics.Handler(injector.Handle), cfg.metrics.Refused
	}
	b.instance = discovery.Instance{
		ID: discovery.NewInstanceID(), Name: cfg.name, Endpoint: c.endpoint,
		Transport: discovery.NDJSON, Resume: discovery.ResumeIndex, MaxRequest: cfg.maxRequest,
	}
	// Before anybody can ask: the address may be in the record of a server that
	// was there before.
	b.server.SetNames(b.instance.Record())
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.listen)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w; choose another address with --listen, or port 0 for any free one", cfg.listen, err)
	}
	b.instance.Address = cmp.Or(cfg.advertise, l.Addr().String())
	b.serving.Go(func() { b.err = b.server.Serve(l) })
	b.lease, err = discovery.NewRegistry(store, c.logs.For("discovery")).Register(ctx, b.instance)
	if err != nil {
		b.server.Close()
		b.serving.Wait()
		return nil, err
	}
	log.Info(fmt.Sprintf("Server initialized: name=%s, failure_mode=%v", cfg.name, cfg.fault.Mode))
	log.Debug("serving", "instance", b.instance.ID, "address", b.instance.Address, "endpoint", c.endpoint)
	return b, nil
}

// stop deregisters, lets running streams finish until ctx ends, hands the rest
// back, and waits for everything. It returns how many were handed back, why it
// could not deregister, and what has gone wrong with serving.
func (b *backend) stop(ctx context.Context) (handedBack int, undone, err error) {
	releaseCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	undone = b.lease.Release(releaseCtx)
	handedBack = b.server.Shutdown(ctx)
	b.serving.Wait()
	if !errors.Is(b.err, stream.ErrClosed) {
		err = b.err
	}
	return handedBack, undone, err
}

// releaseTimeout bounds how long a store may take to forget an instance that
// leaves; after it, the lease does the same.
const releaseTimeout = 2 * time.Second

// faultText is the log line of a fault that shows.
func faultText(f fault.Fault, name string) string {
	if f.Kind == fault.Error {
		return fmt.Sprintf("Simulating stream error after %d characters (server: %s)", f.After, name)
	}
	return fmt.Sprintf("Simulating %s after %d characters (server: %s)", f.Kind, f.After, name)
}
