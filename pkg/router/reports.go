package router

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/internal/signal"
	"github.com/request-migration/migrate/pkg/stream"
)

// Reports is where clients tell each other which instances they have reported
// down. Both methods must be safe for concurrent use.
type Reports interface {
	// Report publishes r until r.Until, and returns when that is done or ctx
	// has ended. The router logs an error as a warning.
	Report(ctx context.Context, r discovery.Report) error
	// WatchReports yields the complete set of reports about e's instances that
	// stand, at once and whenever it changes, until ctx ends. A report is heeded
	// for bound at most, counted from when it was made. After an error the
	// router does without, and watches again after a second.
	WatchReports(ctx context.Context, e discovery.Endpoint, bound time.Duration) iter.Seq2[discovery.Reports, error]
}

const (
	// reportTimeout bounds how long publishing one report may take. Only
	// [Router.Close] waits for that, no request does.
	reportTimeout = 2 * time.Second
	// maxPublishing is how many reports are under way at once: enough for a
	// store that takes its time, few enough for one that is busy.
	maxPublishing = 16
	// heedTimeout bounds how long a router's first requests wait for the reports
	// of others: a second, as a request without them is better than a late one.
	heedTimeout = time.Second
)

// sharing holds the reports that a router has yet to publish, one an instance,
// however many requests break there. A request only adds to it.
type sharing struct {
	reporter string
	kick     chan struct{} // wakes the publishing goroutine

	mu      sync.Mutex // guards pending
	pending map[discovery.InstanceID]Down
}

func newSharing(reporter string) *sharing {
	if reporter == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown"
		}
		reporter = fmt.Sprintf("%s-%d-%04x", strings.ReplaceAll(host, "/", "-"), os.Getpid(), rand.N(1<<16))
	}
	return &sharing{reporter: reporter, kick: make(chan struct{}, 1), pending: make(map[discovery.InstanceID]Down)}
}

func (s *sharing) add(d Down) {
	s.mu.Lock()
	s.pending[d.Instance.ID] = d
	s.mu.Unlock()
	signal.Send(s.kick)
}

func (s *sharing) take() map[discovery.InstanceID]Down {
	s.mu.Lock()
	defer s.mu.Unlock()
	pending := s.pending
	s.pending = make(map[discovery.InstanceID]Down)
	return pending
}

// publish publishes the reports of this router until it is closed, and then those
// that are left: what the last request of a command has seen concerns others too.
func (r *Router) publish() {
	var publishing sync.WaitGroup
	free := make(chan struct{}, maxPublishing)
	for {
		select {
		case <-r.sharing.kick:
			r.publishPending(r.ctx, &publishing, free)
			continue
		case <-r.ctx.Done():
		}
		publishing.Wait() // those that Close has interrupted come back
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), reportTimeout)
		defer cancel()
		r.publishPending(ctx, &publishing, free)
		publishing.Wait()
		return
	}
}

// publishPending publishes the reports there are, several at once, so that one
// for which the store is slow holds up few others.
func (r *Router) publishPending(ctx context.Context, publishing *sync.WaitGroup, free chan struct{}) {
	for _, d := range r.sharing.take() {
		free <- struct{}{} // each ends within reportTimeout
		publishing.Go(func() {
			defer func() { <-free }()
			r.publishOne(ctx, d)
		})
	}
}

// publishOne publishes a report, unless it has ended meanwhile.
func (r *Router) publishOne(ctx context.Context, d Down) {
	if !d.Until.After(time.Now()) {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	var kind stream.Kind
	reason := d.Cause.Error()
	if b, ok := errors.AsType[*stream.Break](d.Cause); ok {
		kind, reason = b.Kind, b.Text()
	}
	err := r.cfg.Reports.Report(bounded, discovery.Report{
		Endpoint: r.cfg.Endpoint, Instance: d.Instance.ID, Incarnation: d.Instance.Incarnation,
		Reporter: r.sharing.reporter, Kind: string(kind), Reason: reason,
		Since: d.Since, Until: d.Until,
	})
	switch {
	case err == nil, !d.Until.After(time.Now()):
	case errors.Is(ctx.Err(), context.Canceled):
		r.sharing.add(d) // Close has interrupted it, and will try once more
	default:
		r.log.Warn("others are not told that an instance is down", "instance", d.Instance.ID, "name", d.Instance.Name, "err", err)
	}
}

// heed follows the reports of others. While they can't be read, the router goes by
// what it sees itself.
func (r *Router) heed() {
	late := time.AfterFunc(heedTimeout, r.tiers.doNotWait)
	defer late.Stop()
	for r.ctx.Err() == nil {
		for set, err := range r.cfg.Reports.WatchReports(r.ctx, r.cfg.Endpoint, r.tiers.bound()) {
			if r.ctx.Err() != nil {
				return
			}
			if err != nil {
				r.log.Debug("the reports of others can't be read, trying again", "err", err)
				r.tiers.setHeard(nil)
				break
			}
			for _, h := range r.tiers.setHeard(r.fromOthers(set.List)) {
				r.log.Debug(fmt.Sprintf("instance %v is reported down by another client", h.Instance),
					"reporter", h.Reporter, "kind", h.Kind, "for", time.Until(h.Until))
			}
		}
		select {
		case <-time.After(sourceRetry):
		case <-r.ctx.Done():
		}
	}
}

// fromOthers returns the reports of other clients. This router's own are known to
// the tiers already, which end them at their deadline.
func (r *Router) fromOthers(list []discovery.Report) []discovery.Report {
	others := make([]discovery.Report, 0, len(list))
	for _, report := range list {
		if report.Reporter != r.sharing.reporter {
			others = append(others, report)
		}
	}
	return others
}

// heard is a report of another client. Its Until is the end of the time for which
// this router heeds it.
type heard struct {
	discovery.Report
	seen   time.Time // when this router first read it
	heeded bool      // it has made its instance half-open
}

// bound is how long a router heeds another client's report at most, counted from
// when it was made: as long as one of its own could last.
func (t *tiers) bound() time.Duration { return max(t.cooldown, t.maxCooldown) }

// setHeard takes over the reports of others that stand, and returns those that
// are new. What is known of the others is kept.
func (t *tiers) setHeard(reports []discovery.Report) (news []heard) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	all := make(map[discovery.InstanceID][]heard)
	for _, r := range reports {
		if limit := r.Since.Add(t.bound()); limit.Before(r.Until) {
			r.Until = limit
		}
		if !r.Stands(now) {
			continue
		}
		h, isNew := heard{Report: r, seen: now}, true
		for _, known := range t.heard[r.Instance] {
			if known.Reporter == r.Reporter && known.Incarnation == r.Incarnation && known.Until.Equal(r.Until) {
				h, isNew = known, false
			}
		}
		if isNew {
			news = append(news, h)
		}
		all[r.Instance] = append(all[r.Instance], h)
		t.due.Store(min(t.due.Load(), int64(h.Until.Sub(t.began))))
	}
	t.heard = all
	t.next.unasked = false
	t.dirty.Store(true)
	t.changed(now)
	return news
}

// isOut reports whether the reports of others keep p out. One that is new makes p
// half-open. The caller holds mu.
func (t *tiers) isOut(p *Peer, now time.Time) bool {
	reports := t.heard[p.ID]
	if len(reports) == 0 {
		return false
	}
	outweighs := p.recall().outweighs
	var unrefuted []discovery.Report
	for i := range reports {
		h := &reports[i]
		if !h.heeded && h.Incarnation == p.Incarnation && h.Stands(now) {
			h.heeded = true
			t.opens(p, now)
		}
		if h.seen.After(outweighs) { // else a request has shown since that p serves
			unrefuted = append(unrefuted, h.Report)
		}
	}
	_, out := discovery.Standing(*p.Instance, unrefuted, now)
	return out
}

// longest returns, of the reports about each instance, the one that ends last.
func longest(all map[discovery.InstanceID][]heard) map[discovery.InstanceID]discovery.Report {
	if len(all) == 0 {
		return nil
	}
	reports := make(map[discovery.InstanceID]discovery.Report, len(all))
	for id, hs := range all {
		for _, h := range hs {
			if h.Until.After(reports[id].Until) {
				reports[id] = h.Report
			}
		}
	}
	return reports
}
