// Package backend runs a server of the endpoint in this process, for serve and for
// request --spawn.
package backend

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"time"

	"github.com/request-migration/migrate/cmd/internal/cli"
	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/server"
	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/fault"
	"github.com/request-migration/migrate/pkg/stream/metrics"
)

// Backend is a server of the endpoint in this process: listening, then
// registered.
type Backend struct{ running *server.Running }

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
	Engine     string                                               // for the record: what Handler is
	Resume     discovery.Resume                                     // how Handler does
	Listed     func(context.Context) iter.Seq[[]discovery.Instance] // what is registered; nil: one instance
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
	srv := &stream.Server{
		Handler:    injector.Handle,
		Admit:      injector.Admit,
		Resumes:    cfg.Resume != discovery.ResumeNo,
		MaxStreams: cfg.MaxStreams,
		MaxRequest: cfg.MaxRequest,
		Farewell:   cfg.Farewell,
		Logger:     c.Logs.For("stream"),
	}
	if cfg.Metrics != nil {
		srv.Handler, srv.Refused = cfg.Metrics.Handler(injector.Handle), cfg.Metrics.Refused
	}
	started := make(chan struct{})
	defer close(started)
	listed, listingLog := cfg.Listed, (*slog.Logger)(nil)
	if listed != nil {
		listingLog = log // what is registered changes
		listed = func(ctx context.Context) iter.Seq[[]discovery.Instance] {
			return func(yield func([]discovery.Instance) bool) {
				<-started // and has said so
				cfg.Listed(ctx)(yield)
			}
		}
	}
	running, err := server.Start(ctx, server.Config{
		Logger: listingLog,
		Server: srv, Registry: discovery.NewRegistry(store, c.Logs.For("discovery")), Listen: cfg.Listen, Listed: listed,
		Instance: discovery.Instance{
			Name: cfg.Name, Endpoint: c.Endpoint, Address: cfg.Advertise,
			Resume: cfg.Resume, Engine: cfg.Engine, MaxRequest: cfg.MaxRequest,
		},
	})
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "listen" {
		return nil, fmt.Errorf("%w; choose another address with --listen, or port 0 for any free one", err)
	}
	if err != nil {
		return nil, err
	}
	log.Info(fmt.Sprintf("Server initialized: name=%s, failure_mode=%v", cfg.Name, cfg.Fault.Mode))
	i := running.Instance()
	log.Debug("serving", "instance", i.ID, "address", i.Address, "endpoint", c.Endpoint)
	return &Backend{running}, nil
}

// Streams returns the number of running streams.
func (b *Backend) Streams() int { return b.running.Streams() }

// Stop deregisters, lets running streams finish until ctx ends, hands the rest
// back, and waits for everything. It returns how many were handed back, why it
// could not deregister, and what has gone wrong with serving.
func (b *Backend) Stop(ctx context.Context) (handedBack int, undone, err error) {
	end, err := b.running.Stop(ctx)
	return end.HandedBack, end.Undone, err
}

// faultText is the log line of a fault that shows.
func faultText(f fault.Fault, name string) string {
	if f.Kind == fault.Error {
		return fmt.Sprintf("Simulating stream error after %d characters (server: %s)", f.After, name)
	}
	return fmt.Sprintf("Simulating %s after %d characters (server: %s)", f.Kind, f.After, name)
}
