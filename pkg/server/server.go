// Package server runs the life of a server of an endpoint: it listens, registers, serves,
// and leaves in an order in which no request is lost.
//
// [Serve] does all of it until its context ends; [Start] and [Running.Stop] are for
// programs that have more to do in between.
//
// A server that leaves releases its registration first, so that routers send it nothing
// new. Then it refuses the requests that still arrive, lets running streams finish, hands
// the rest back to their clients, which carry on elsewhere, and closes its connections.
// Whoever opened the store closes it last. A program that makes requests ends in this
// order: it lets its requests end, closes its router, which publishes what it still has to
// report, then the stream client, then the store.
package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

const (
	// DefaultListen is any free port of the loopback address, so that nobody is reached
	// from elsewhere who did not ask for that.
	DefaultListen = "127.0.0.1:0"
	// DefaultDrain is how long running streams may go on, by default, once a server leaves.
	DefaultDrain = 10 * time.Second
)

// Config says what a server serves, and where. Server, Registry and Instance.Endpoint must
// be set; every other zero value is useful.
type Config struct {
	// Server answers the requests; its Handler must be set. The server's names are set
	// before it listens.
	Server *stream.Server
	// Registry is where the server registers.
	Registry *discovery.Registry
	// Instance is what is registered. Its id may be 0 for a new one, its transport "" for
	// [discovery.NDJSON], and its address "" for the one that the server is bound to.
	Instance discovery.Instance
	// Listed, if set, decides what is registered in place of Instance: it yields the
	// complete set each time that it changes, until its context ends. Instances are listed
	// and released accordingly. What one leaves out of its id, name, transport and address
	// it takes from Instance; each has an endpoint. A registration that fails is logged and
	// tried again every 2 s.
	Listed func(context.Context) iter.Seq[[]discovery.Instance]
	// Listen is the host and port to listen on; "" means [DefaultListen]. It must be an
	// address that clients can connect to, unless Instance has another.
	Listen string
	// Listener, if set, is where the server takes connections, in place of listening on
	// Listen: an encrypted one, or one in memory for a test. The server closes it, also
	// when it cannot start.
	Listener net.Listener
	// Drain is how long [Serve] lets running streams go on once its context has ended; 0
	// means [DefaultDrain]. The rest is handed back then.
	Drain time.Duration
	// Logger gets a line when [Serve] has started the server and when it has left, and when
	// an instance is registered or deregistered, at info level, and what could not be
	// registered or released, at warn level. Nil discards.
	Logger *slog.Logger
}

// Serve runs a server until ctx ends, and then lets it leave. It returns nil if the server
// has served until then and left, and an error if it could not start, or could serve no
// longer. It panics at once if the Config lacks what it must have.
func Serve(ctx context.Context, cfg Config) error {
	r, err := Start(ctx, cfg)
	if err != nil {
		return err
	}
	i := r.Instance()
	r.log.Info("server has started", "instance", i.ID, "name", i.Name, "address", i.Address)
	select {
	case <-ctx.Done():
	case <-r.done: // it serves no longer
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), cmp.Or(cfg.Drain, DefaultDrain))
	defer cancel()
	end, err := r.Stop(drain)
	if end.Undone != nil {
		r.log.Warn("the registration could not be released, and expires by itself", "err", end.Undone)
	}
	r.log.Info("server has left", "instance", r.Instance().ID, "handed back", end.HandedBack)
	return err
}

// Running is a server that runs. It is safe for concurrent use.
type Running struct {
	server   *stream.Server
	instance discovery.Instance
	listing  *listing
	log      *slog.Logger

	unlist    context.CancelFunc // ends following
	following sync.WaitGroup
	serving   sync.WaitGroup
	done      chan struct{} // closed when it serves no longer
	err       error         // of serving, once done is closed
}

// Start starts a server: when it returns, the server is listening, serving and registered,
// unless [Config.Listed] decides when it is.
// After an error nothing runs. ctx bounds the start alone; [Running.Stop] ends the server.
func Start(ctx context.Context, cfg Config) (*Running, error) {
	switch {
	case cfg.Server == nil:
		panic("server: Config.Server is nil")
	case cfg.Server.Handler == nil:
		panic("server: Config.Server.Handler is nil")
	case cfg.Registry == nil:
		panic("server: Config.Registry is nil")
	}
	r := &Running{server: cfg.Server, instance: cfg.Instance, log: cfg.Logger, done: make(chan struct{})}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	i := &r.instance
	if i.ID == 0 {
		i.ID = discovery.NewInstanceID()
	}
	i.Transport = cmp.Or(i.Transport, discovery.NDJSON)
	// Before anybody can ask: the address may be in the record of a server that was there
	// before.
	r.listing = &listing{server: r.server, registry: cfg.Registry, log: r.log, held: map[string]registration{}}
	r.listing.name(*i)
	l, err := listen(ctx, cfg)
	if err != nil {
		return nil, err
	}
	i.Address = cmp.Or(i.Address, l.Addr().String())
	r.serving.Go(func() {
		defer close(r.done)
		r.err = r.server.Serve(l)
	})
	r.listing.own = *i
	following, unlist := context.WithCancel(context.WithoutCancel(ctx))
	r.unlist = unlist
	if cfg.Listed != nil {
		r.following.Go(func() { r.listing.follow(following, cfg.Listed) })
	} else {
		if r.instance, err = r.listing.add(ctx, *i); err != nil {
			unlist()
			r.server.Close()
			r.serving.Wait()
			return nil, err
		}
		r.log.Info("registered", "instance", i.Record(), "address", i.Address)
	}
	return r, nil
}

func listen(ctx context.Context, cfg Config) (net.Listener, error) {
	if cfg.Listener != nil {
		return cfg.Listener, nil
	}
	addr := cmp.Or(cfg.Listen, DefaultListen)
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", addr, err)
	}
	return l, nil
}

// Instance returns the instance as it is registered. With [Config.Listed] it is what
// instances take from it.
func (r *Running) Instance() discovery.Instance { return r.instance }

// Streams returns the number of running streams.
func (r *Running) Streams() int { return r.server.Streams() }

// End says how a server has left.
type End struct {
	// HandedBack is how many streams were handed back to their clients when the time for
	// them was over.
	HandedBack int
	// Undone is why the registration could not be released; nil if it was. It expires by
	// itself then.
	Undone error
}

// Stop lets the server leave: it deregisters, lets running streams finish until ctx ends,
// hands the rest back, and waits for everything that Start has started. The error is why
// the server had stopped serving before; nil if it had not.
func (r *Running) Stop(ctx context.Context) (End, error) {
	r.unlist()
	r.following.Wait()
	var end End
	end.Undone = r.listing.remove(ctx, slices.Collect(maps.Keys(r.listing.held))...)
	end.HandedBack = r.server.Shutdown(ctx)
	r.serving.Wait()
	if !errors.Is(r.err, stream.ErrClosed) {
		return end, fmt.Errorf("serving %s: %w", r.instance.Record(), r.err)
	}
	return end, nil
}
