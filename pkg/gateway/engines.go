package gateway

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"sync"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/engine/openai"
	"github.com/request-migration/migrate/pkg/stream"
)

// inProcess is the transport of instances that are engines in this process. Their address is
// the engine's name.
const inProcess = "engine"

func isEngine(i discovery.Instance) bool { return i.Transport == inProcess }

// Engines are engines in this process: a router's client that calls their handlers, and the
// registry in which their models are listed while they are well. It is safe for concurrent
// use.
type Engines struct {
	byName    map[string]*openai.Engine
	namespace string
	store     discovery.Mem
	registry  *discovery.Registry
	log       *slog.Logger

	stop   context.CancelFunc
	watch  sync.WaitGroup
	asked  sync.WaitGroup // until each engine was asked once
	known  chan struct{}  // closed then
	knower sync.WaitGroup

	mu  sync.Mutex
	out map[string]string // engines that take no requests, by name, and why
}

// NewEngines watches engines, by their names, and lists their models in a namespace. Close
// ends that; it does not close the engines.
func NewEngines(namespace string, engines map[string]*openai.Engine, log *slog.Logger) *Engines {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	e := &Engines{byName: engines, namespace: namespace, log: log, known: make(chan struct{}), out: map[string]string{}}
	e.registry = discovery.NewRegistry(&e.store, log)
	ctx, stop := context.WithCancel(context.Background())
	e.stop = stop
	e.asked.Add(len(engines))
	for name, engine := range engines {
		id := discovery.NewInstanceID()
		e.watch.Go(func() { e.follow(ctx, name, id, engine) })
	}
	e.knower.Go(func() {
		e.asked.Wait()
		close(e.known)
	})
	return e
}

// wereAsked reports whether every engine was asked what it has.
func (e *Engines) wereAsked() bool {
	select {
	case <-e.known:
		return true
	default:
		return false
	}
}

// takesNone returns the engines that take no requests, by name, and why.
func (e *Engines) takesNone() map[string]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.out)
}

// note notes whether an engine takes requests.
func (e *Engines) note(name string, s openai.Standing) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.Alive {
		delete(e.out, name)
		return
	}
	e.out[name] = s.Why
}

// Close ends the watching of the engines, and waits for it.
func (e *Engines) Close() {
	e.stop()
	e.watch.Wait()
	e.knower.Wait()
	_ = e.store.Close() // a store in memory has no errors
}

// source lists all engines for a model, whether they list it or not.
func (e *Engines) source(model string) *discovery.StaticInstances {
	var all []discovery.Instance
	id := discovery.InstanceID(1)
	for name := range e.byName {
		all = append(all, e.instance(name, model, id, discovery.ResumeNo))
		id++
	}
	return discovery.Static(all...)
}

func (e *Engines) instance(name, model string, id discovery.InstanceID, resume discovery.Resume) discovery.Instance {
	return discovery.Instance{
		ID: id, Name: name, Endpoint: endpoint(e.namespace, model), Transport: inProcess, Address: name,
		Resume: resume, Engine: openai.EndpointName,
	}
}

// follow lists the models of one engine.
func (e *Engines) follow(ctx context.Context, name string, id discovery.InstanceID, engine *openai.Engine) {
	leases := map[string]discovery.Lease{} // by model
	first := sync.OnceFunc(e.asked.Done)
	defer first()
	for s := range engine.Watch(ctx) {
		e.note(name, s)
		listed := map[string]openai.Model{}
		for _, m := range s.Models {
			listed[m.Name] = m
		}
		if s.Alive {
			e.log.Info("engine is ready", "engine", name, "type", s.Kind, "models", len(s.Models))
		} else {
			e.log.Warn("engine takes no requests", "engine", name, "why", s.Why)
		}
		for model, lease := range leases {
			if _, ok := listed[model]; !ok {
				_ = lease.Release(ctx) // from memory
				delete(leases, model)
			}
		}
		for model, m := range listed {
			resume := discovery.ResumeNo
			if m.ByPrefix {
				resume = discovery.ResumePrefix
			}
			if leases[model] != nil {
				continue
			}
			_, lease, err := e.registry.Register(ctx, e.instance(name, model, id, resume))
			if err != nil {
				if ctx.Err() == nil {
					e.log.Error("a model cannot be listed", "engine", name, "model", model, "err", err)
				}
				continue
			}
			leases[model] = lease
		}
		first()
	}
}

// Stream implements [github.com/request-migration/migrate/pkg/router.Client]: it calls the
// handler of the engine that the instance is.
func (e *Engines) Stream(ctx context.Context, i discovery.Instance, req stream.Request) iter.Seq2[stream.Annotated, error] {
	return func(yield func(stream.Annotated, error) bool) {
		engine := e.byName[i.Address]
		if engine == nil {
			yield(stream.Annotated{}, stream.Unreachable)
			return
		}
		if req.Hooks != nil && req.Hooks.Started != nil {
			req.Hooks.Started()
		}
		items := 0
		err := engine.Handle(ctx, &req, func(a stream.Annotated) error {
			items++ // each has memory of its own
			if !yield(a, nil) {
				return errLeft
			}
			return nil
		})
		switch {
		case err == nil, errors.Is(err, errLeft):
			return
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case items > 0 && (errors.Is(err, stream.ErrOverloaded) || errors.Is(err, stream.ErrUnresumable)):
			// As a server does: what refuses in the middle has broken.
			err = fmt.Errorf("%w: %v", stream.ErrFailedUnreported, err) //nolint:errorlint // it is no refusal any more
		}
		yield(stream.Annotated{}, err)
	}
}

// errLeft ends a handler whose caller wants no more items.
var errLeft = errors.New("nobody reads the answer any more")
