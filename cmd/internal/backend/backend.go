// Package backend runs a server of the endpoint in this process, for serve and for
// request --spawn.
package backend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/request-migration/migrate/cmd/internal/cli"
	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/fault"
	"github.com/request-migration/migrate/pkg/stream/metrics"
)

// Backend is a server of the endpoint in this process: listening, then
// registered.
type Backend struct {
	instance discovery.Instance
	server   *stream.Server
	lease    discovery.Lease
	serving  sync.WaitGroup
	err      error // of serving; read after serving ended
}

// Echo is the name of the engine that is [stream.Echo], for records.
const Echo = "echo"

// DefaultFailureAfter is how many items a failing request sends first, as in the original.
const DefaultFailureAfter = 2

// Config says what a backend serves, and where. Name, Listen, Handler, Engine and Resume
// are required.
type Config struct {
	Name       string
	Listen     string
	Advertise  string
	Handler    stream.Handler
	Engine     string           // for the record: what Handler is
	Resume     discovery.Resume // how Handler does
	Fault      fault.Fault
	MaxStreams int
	MaxRequest int // bytes of a request's line; 0: stream.MaxLine
	Farewell   time.Duration
	Metrics    *metrics.Server // nil: none
}

// Start listens, serves and registers. Stop ends what it has started; after an error
// nothing runs.
func Start(ctx context.Context, c cli.Common, store discovery.Store, cfg Config) (*Backend, error) {
	log := c.Logs.For("serve")
	cfg.Fault.Notify = func(f fault.Fault) {
		log.Info(faultText(f, cfg.Name))
	}
	injector := fault.Inject(cfg.Handler, cfg.Fault)
	b := &Backend{server: &stream.Server{
		Handler:    injector.Handle,
		Admit:      injector.Admit,
		Resumes:    cfg.Resume != discovery.ResumeNo,
		MaxStreams: cfg.MaxStreams,
		MaxRequest: cfg.MaxRequest,
		Farewell:   cfg.Farewell,
		Logger:     c.Logs.For("stream"),
	}}
	if cfg.Metrics != nil {
		b.server.Handler, b.server.Refused = cfg.Metrics.Handler(injector.Handle), cfg.Metrics.Refused
	}
	b.instance = discovery.Instance{
		ID: discovery.NewInstanceID(), Name: cfg.Name, Endpoint: c.Endpoint,
		Transport: discovery.NDJSON, Resume: cfg.Resume, Engine: cfg.Engine, MaxRequest: cfg.MaxRequest,
	}
	// Before anybody can ask: the address may be in the record of a server that
	// was there before.
	b.server.SetNames(b.instance.Record())
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w; choose another address with --listen, or port 0 for any free one", cfg.Listen, err)
	}
	b.instance.Address = cmp.Or(cfg.Advertise, l.Addr().String())
	b.serving.Go(func() { b.err = b.server.Serve(l) })
	b.lease, err = discovery.NewRegistry(store, c.Logs.For("discovery")).Register(ctx, b.instance)
	if err != nil {
		b.server.Close()
		b.serving.Wait()
		return nil, err
	}
	log.Info(fmt.Sprintf("Server initialized: name=%s, failure_mode=%v", cfg.Name, cfg.Fault.Mode))
	log.Debug("serving", "instance", b.instance.ID, "address", b.instance.Address, "endpoint", c.Endpoint)
	return b, nil
}

// Streams returns the number of running streams.
func (b *Backend) Streams() int { return b.server.Streams() }

// Stop deregisters, lets running streams finish until ctx ends, hands the rest
// back, and waits for everything. It returns how many were handed back, why it
// could not deregister, and what has gone wrong with serving.
func (b *Backend) Stop(ctx context.Context) (handedBack int, undone, err error) {
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
