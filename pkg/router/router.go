package router

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// The defaults of a [Config].
const (
	DefaultAttempts = 3
	// DefaultCooldown is Dynamo's; there it is the pace of one loop that
	// restores everybody, so that a cooldown lasts from 0 to 5 s.
	DefaultCooldown = 5 * time.Second
)

const (
	// reconcileInterval is how often the reconcile loop makes a round even
	// when no deadline asks for one.
	reconcileInterval = 5 * time.Second
	// sourceRetry is the pause before a source that could not be read at all
	// is tried again.
	sourceRetry = time.Second
)

// A Client opens the stream of one attempt; [*stream.Client] is one. The
// sequence ends without an error if the answer is complete. Its last pair may
// be an error: a [*stream.Break] is judged, any other is the request's end. It
// calls the request's Started hook, or else the first item tells that it was taken.
//
// A Client that also has a method SaidDraining(addr string) bool tells whether a
// server has said on any connection that it leaves: such a server is not missed
// when discovery no longer lists it.
type Client interface {
	Stream(ctx context.Context, addr string, req stream.Request) iter.Seq2[stream.Annotated, error]
}

// Config says what a [Router] works with. Source and Client must be set; every
// other zero value is useful.
type Config struct {
	// Endpoint is named in errors and logs.
	Endpoint discovery.Endpoint
	// Source yields instance_source, as [discovery.Registry.Watch] does.
	Source func(context.Context) iter.Seq2[discovery.Instances, error]
	// Client opens streams.
	Client Client
	// Picker chooses an instance; nil is [Random].
	Picker Picker
	// Attempts is how many streams a request may open; 0 means
	// [DefaultAttempts]. Refusals do not count.
	Attempts int
	// Restart lets every attempt begin at the first item, and yields the items
	// of all attempts. Without it a request carries on at the item where its
	// stream broke.
	Restart bool
	// Cooldown is how long a reported instance stays down; 0 means
	// [DefaultCooldown].
	Cooldown time.Duration
	// MaxCooldown, if above Cooldown, lets the cooldown double with each
	// failure in a row, up to it. A completed stream ends the row.
	MaxCooldown time.Duration
	// Wait is how long a request waits before its first attempt for an
	// instance to appear in the source; 0 means that it fails at once when the
	// source lists none. For the source to say anything it waits in any case.
	Wait time.Duration
	// WaitRestore is how long a request waits for an instance when all are
	// down; 0 means that it fails at once. An instance that broke the request
	// may return to it then, if nobody else is left.
	WaitRestore time.Duration
	// Panic lets a request that has delivered nothing, and for which nobody is
	// left, ask once more: an instance that is down or has had the request,
	// after about as long as that asked for, or half a second.
	Panic bool
	// Where says in words where Source looks, for the error of a request for
	// which it lists nobody. It may be empty.
	Where string
	// Reports, if set, shares what is reported down with other clients of the
	// endpoint; [*discovery.Registry] does. Their reports narrow this router's
	// choice, but never to nothing.
	Reports Reports
	// Reporter is how this router signs its reports, a part of a key; "" means
	// the host's name, the process's number and a random one.
	Reporter string
	// Trace, if set, returns for each request the functions that follow it, as
	// those of [WithTrace] do and before them. It is called from many goroutines.
	Trace func() *Trace
	// Logger hears of breaks at info level and of all else at debug level.
	// Nil is silent.
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

// New starts a router. Close it to end its goroutines.
func New(cfg Config) *Router {
	if cfg.Picker == nil {
		cfg.Picker = random{}
	}
	if cfg.Attempts <= 0 {
		cfg.Attempts = DefaultAttempts
	}
	if cfg.Cooldown <= 0 {
		cfg.Cooldown = DefaultCooldown
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Router{
		cfg:    cfg,
		tiers:  tiers{cooldown: cfg.Cooldown, maxCooldown: cfg.MaxCooldown},
		log:    cfg.Logger,
		jitter: rand.N[time.Duration],
	}
	if c, ok := cfg.Client.(interface{ SaidDraining(addr string) bool }); ok {
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

// Close stops following the source and waits for the router's goroutines. What
// is still to be reported to others it reports, for two seconds at most.
// Requests that run are not ended by it; they are their callers'.
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

// watch follows the source. It tries again while the source can't be read at
// all; a source that was read once heals by itself.
func (r *Router) watch() {
	for r.ctx.Err() == nil {
		for list, err := range r.cfg.Source(r.ctx) {
			if r.ctx.Err() != nil {
				return
			}
			r.follow(list, err)
		}
		select {
		case <-time.After(sourceRetry):
		case <-r.ctx.Done():
		}
	}
}

// follow takes over what the source said.
func (r *Router) follow(list discovery.Instances, err error) {
	level := slog.LevelWarn
	if r.tiers.load().Stale != nil {
		level = slog.LevelDebug // that has been said
	}
	if err != nil {
		r.log.Log(r.ctx, level, "discovery ended, trying again", "endpoint", r.cfg.Endpoint, "err", err)
		r.tiers.setStale(err)
		return
	}
	t, lost := r.tiers.setSource(list)
	if lost > 0 {
		r.log.Warn("discovery has lost most instances at once: they are kept as a last resort", "endpoint", r.cfg.Endpoint,
			"lost", lost, "source", len(t.Source), "for", keepLost)
	}
	if t.Stale != nil {
		r.log.Log(r.ctx, level, "instance_source is stale", "endpoint", r.cfg.Endpoint, "err", t.Stale)
	}
	r.log.Debug("instance_source", "endpoint", r.cfg.Endpoint, "source", len(t.Source), "avail", len(t.Avail))
}

// ReportDown puts an instance of the source down for its cooldown, as a break
// does, and reports whether it was there and not down already.
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
		if share && r.sharing != nil {
			r.sharing.add(d)
		}
	}
	return d, isNew
}

// reconcile puts instances back as their cooldowns pass: each at its own
// deadline, which one timer for all of them keeps.
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
			r.log.Debug(fmt.Sprintf("restoring instance %v", i.ID), "name", i.Name)
		}
		if again.IsZero() {
			deadline.Stop()
		} else {
			deadline.Reset(time.Until(again))
		}
	}
}
