package router

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// The defaults of a [Config].
const (
	DefaultAttempts = 3
	// DefaultCooldown is the interval of Dynamo's reconcile loop. As that loop
	// restores all instances at once, a cooldown lasts from 0 to 5 s there.
	DefaultCooldown = 5 * time.Second
)

// reconcileInterval is how often the reconcile loop makes a round even when no
// deadline asks for one.
const reconcileInterval = 5 * time.Second

// Config says what a [Router] works with. Source and Client must be set, and Endpoint if
// Reports is; every other zero value is useful.
type Config struct {
	// Endpoint is what Source and Reports are asked for, and is named in errors and logs.
	Endpoint discovery.Endpoint
	// Source yields instance_source; [*discovery.Registry] does, and what
	// [discovery.Static] returns.
	Source Source
	// Client opens streams; [StreamClient] makes one.
	Client Client
	// Routable reports whether Client can reach an instance; the others of Source are
	// left alone. Nil is [discovery.Instance.Routable], which suits a [StreamClient].
	Routable func(discovery.Instance) bool
	// Picker chooses among the instances; nil is [Random].
	Picker Picker
	// Attempts is how many streams a request may open; 0 means
	// [DefaultAttempts]. Refusals do not count.
	Attempts int
	// Restart lets every attempt begin at the first item, and yields the items
	// of all attempts. Without it a request carries on at the item where its
	// stream broke.
	Restart bool
	// MaxPrefix is how many bytes of an answer's items a request keeps, so that it can
	// carry the answer on at an instance that does not resume by index; 0 means
	// [DefaultMaxPrefix]. A longer answer is carried on by index, or not at all. Where all
	// instances resume by index when an answer begins, nothing is kept.
	MaxPrefix int
	// Cooldown is how long a reported instance stays down; 0 means
	// [DefaultCooldown].
	Cooldown time.Duration
	// MaxCooldown, if above Cooldown, lets the cooldown double with each
	// failure in a row, up to it. A completed stream ends the row.
	MaxCooldown time.Duration
	// Wait is how long a request waits before its first attempt for an
	// instance to appear in the source; 0 means that it fails at once when the
	// source lists none. Until the source has been read, it waits in any case.
	Wait time.Duration
	// WaitRestore is how long a request waits for an instance when all are
	// down; 0 means that it fails at once. If no other instance is left, the
	// request may go back to one where it broke.
	WaitRestore time.Duration
	// Panic lets a request that has delivered nothing, and for which no instance
	// is left, ask one more time: an instance that is down, or that has had the
	// request already. Before that it waits for as long as the instance has asked
	// for, or else half a second, and up to half as long again.
	Panic bool
	// Where says in words where Source looks, for the error of a request for
	// which it lists no instance. It may be empty.
	Where string
	// Reports, if set, shares down reports with other clients of the endpoint;
	// [*discovery.Registry] does. Their reports narrow this router's choice, but
	// never to nothing.
	Reports Reports
	// Reporter is the name under which this router reports, part of a key and so
	// without a slash; "" means the host's name, the process id and a random
	// number.
	Reporter string
	// Trace, if set, returns for each request the functions that follow it, which
	// are called before those of [Request.Trace]. It must be safe for concurrent
	// use.
	Trace func() *Trace
	// Logger gets, at info level, a line for each instance that goes down or returns and
	// for each request that has to wait; at warn level, trouble with discovery and
	// reports; at debug level, everything else, such as breaks and refusals. Nil discards.
	Logger *slog.Logger
}

// A Router carries requests to the instances of one endpoint. It is safe for
// concurrent use.
type Router struct {
	cfg    Config
	tiers  tiers
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	sharing *sharing // nil without Config.Reports
	// jitter returns a random time below limit; a simulation makes its own.
	jitter func(limit time.Duration) time.Duration
}

// New starts a router. Close it to end its goroutines. It panics if a field of cfg that
// must be set is not.
func New(cfg Config) *Router {
	switch {
	case cfg.Source == nil:
		panic("router: Config.Source is nil")
	case cfg.Client == nil:
		panic("router: Config.Client is nil")
	case cfg.Reports != nil && cfg.Endpoint == discovery.Endpoint{}:
		panic("router: Config.Endpoint is zero, and Config.Reports is set: reports are about an endpoint")
	}
	if cfg.Routable == nil {
		cfg.Routable = discovery.Instance.Routable
	}
	if cfg.Picker == nil {
		cfg.Picker = Random()
	}
	if cfg.Attempts <= 0 {
		cfg.Attempts = DefaultAttempts
	}
	if cfg.MaxPrefix <= 0 {
		cfg.MaxPrefix = DefaultMaxPrefix
	}
	if cfg.Cooldown <= 0 {
		cfg.Cooldown = DefaultCooldown
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Router{
		cfg:    cfg,
		tiers:  tiers{cooldown: cfg.Cooldown, maxCooldown: cfg.MaxCooldown, routable: cfg.Routable},
		log:    cfg.Logger,
		jitter: rand.N[time.Duration],
	}
	if c, ok := cfg.Client.(interface {
		SaidDraining(i discovery.Instance) bool
	}); ok {
		r.tiers.saidDraining = c.SaidDraining
	}
	r.tiers.init(cfg.Reports != nil)
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.wg.Go(r.watch)
	r.wg.Go(r.reconcile)
	if cfg.Reports != nil {
		r.sharing = newSharing(cfg.Reporter)
		r.wg.Go(r.publish)
		r.wg.Go(r.heed)
	}
	return r
}

// Close stops following the source and waits for the router's goroutines. It
// publishes the reports that are left, for two seconds at most. Requests that run
// go on; those that wait for an instance, and later ones, end with [ErrClosed].
func (r *Router) Close() {
	r.cancel()
	r.wg.Wait()
}

// Tiers returns the two tiers as they are now.
func (r *Router) Tiers() *Tiers {
	if r.tiers.dirty.Load() {
		return r.tiers.fresh()
	}
	return r.tiers.load()
}

// ReportDown puts an instance of the source down for its cooldown, as a break with
// that cause does. It returns false if there is no such instance, or it is down
// already.
func (r *Router) ReportDown(id discovery.InstanceID, cause error) bool {
	p := r.tiers.load().byID(id)
	if p == nil {
		return false
	}
	_, isNew := r.reportDown(p, cause, true)
	return isNew
}

func (r *Router) reportDown(p *Peer, cause error, share bool) (Down, bool) {
	debug := r.log.Enabled(r.ctx, slog.LevelDebug)
	if debug {
		r.log.Debug(fmt.Sprintf("Reporting instance %v down due to stream error", p.ID), "name", p.Name, "kind", kindOf(cause))
	}
	d, isNew := r.tiers.report(p, cause, time.Now())
	if isNew {
		if debug {
			r.log.Debug(fmt.Sprintf("inhibiting instance %v", p.ID), "name", p.Name, "for", d.Until.Sub(d.Since))
		}
		r.log.Info(fmt.Sprintf("instance %v is down", p.ID), "name", p.Name, "for", d.Until.Sub(d.Since), "err", cause)
		if share && r.sharing != nil {
			r.sharing.add(d)
		}
	}
	return d, isNew
}

// reconcile puts instances back when their cooldowns have passed, each at its own
// deadline. One timer serves all deadlines.
func (r *Router) reconcile() {
	round := time.NewTicker(reconcileInterval)
	defer round.Stop()
	deadline := time.NewTimer(0)
	defer deadline.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-round.C:
			t := r.tiers.load()
			r.log.Debug("periodic reconciliation for endpoint="+r.cfg.Endpoint.String(),
				"source", len(t.Source), "avail", len(t.Avail), "down", len(t.Down))
		case <-r.tiers.kick:
		case <-deadline.C:
		}
		back, again := r.tiers.reconcile(time.Now())
		for _, i := range back {
			r.log.Info(fmt.Sprintf("restoring instance %v", i.ID), "name", i.Name)
		}
		if again.IsZero() {
			deadline.Stop()
		} else {
			deadline.Reset(time.Until(again))
		}
	}
}
