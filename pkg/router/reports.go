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
	"github.com/request-migration/migrate/pkg/stream"
)

// Reports is where clients tell each other which instances they have taken out.
// Both methods must be safe for concurrent use.
type Reports interface {
	// Report publishes r until it ends by itself. An error costs a warning.
	Report(ctx context.Context, r discovery.Report) error
	// WatchReports yields the complete set of reports that stand, at once and
	// whenever it changes, until ctx ends. Each is heeded for bound at most.
	WatchReports(ctx context.Context, e discovery.Endpoint, bound time.Duration) iter.Seq2[discovery.Reports, error]
}

const (
	// reportTimeout bounds how long one report may take. None is waited for by
	// a request, only by [Router.Close].
	reportTimeout = 2 * time.Second
	// maxPublishing is how many reports are under way at once: enough for a
	// store that takes its time, few enough for one that is busy.
	maxPublishing = 16
	// heedTimeout bounds how long a router's first requests wait for what
	// others have reported. To go without is better than to wait any longer.
	heedTimeout = time.Second
)

// sharing is what a router has yet to tell others. The request that breaks only
// adds to it. There is one entry an instance, however many requests fail.
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
	signal(s.kick)
}

func (s *sharing) take() map[discovery.InstanceID]Down {
	s.mu.Lock()
	defer s.mu.Unlock()
	pending := s.pending
	s.pending = make(map[discovery.InstanceID]Down)
	return pending
}

// publish tells others what this router has reported down, until the router is
// closed, and then the rest: a command that ends after its request has still
// seen what it saw.
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
		publishing.Wait() // for those that Close has interrupted
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), reportTimeout)
		defer cancel()
		r.publishPending(ctx, &publishing, free)
		publishing.Wait()
		return
	}
}

// publishPending publishes what there is, several at once, so that a store that
// is slow with one holds up few.
func (r *Router) publishPending(ctx context.Context, publishing *sync.WaitGroup, free chan struct{}) {
	for _, d := range r.sharing.take() {
		free <- struct{}{} // each ends in its time
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

// heed follows what others report. While that can't be read at all, the router
// goes by what it sees itself.
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
					"reporter", h.Reporter, "kind", h.Kind, "for", time.Until(h.until))
			}
		}
		select {
		case <-time.After(sourceRetry):
		case <-r.ctx.Done():
		}
	}
}

// fromOthers returns the reports of other clients. One's own are known already,
// and are one's own to end.
func (r *Router) fromOthers(list []discovery.Report) []discovery.Report {
	others := make([]discovery.Report, 0, len(list))
	for _, report := range list {
		if report.Reporter != r.sharing.reporter {
			others = append(others, report)
		}
	}
	return others
}

// signal wakes a goroutine that waits on c, or lets it look once more.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is about to look anyway
	}
}
