package instances

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/request-migration/migrate/cmd/internal/cli"
	"github.com/request-migration/migrate/pkg/discovery"
)

// watchRetry is the pause before a watch that has ended starts again. A watch goes on by
// itself while the store is away, so this is for unexpected ends.
const watchRetry = time.Second

// feed holds the latest instances and reports that two watches have yielded. It is safe for
// concurrent use.
type feed struct {
	endpoint discovery.Endpoint
	where    string // describes the store
	// changed has a value when there is something new.
	changed chan struct{}

	mu       sync.Mutex
	list     discovery.Instances
	reports  discovery.Reports
	listed   bool // list has been read
	reported bool // reports have been read, or reading them has failed
	err      error
}

// follow keeps a feed current while show runs, and returns what show does.
func follow(ctx context.Context, registry *discovery.Registry, c cli.Common, cooldown time.Duration, show func(context.Context, *feed) error) error {
	f := &feed{endpoint: c.Endpoint, where: c.Where(), changed: make(chan struct{}, 1)}
	watchCtx, stop := context.WithCancel(ctx)
	var watches sync.WaitGroup
	defer watches.Wait()
	defer stop()
	watches.Go(func() { keepWatching(watchCtx, c.Endpoint, registry.Watch, f.setList) })
	reports := func(ctx context.Context, e discovery.Endpoint) iter.Seq2[discovery.Reports, error] {
		return registry.WatchReportTimes(ctx, e, cooldown)
	}
	watches.Go(func() { keepWatching(watchCtx, c.Endpoint, reports, f.setReports) })
	return show(ctx, f)
}

// keepWatching passes on what a watch yields until ctx ends, and restarts a watch that ends
// earlier.
func keepWatching[T any](ctx context.Context, endpoint discovery.Endpoint,
	watch func(context.Context, discovery.Endpoint) iter.Seq2[T, error], set func(T, error),
) {
	for {
		for value, err := range watch(ctx, endpoint) {
			if ctx.Err() != nil {
				return
			}
			set(value, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(watchRetry):
		}
	}
}

// setList stores what the watch of the instances yielded. An error is fatal only if there
// was no list before.
func (f *feed) setList(list discovery.Instances, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
		f.list, f.listed = list, true
	case f.listed:
		f.list.Stale = err
	default:
		f.err = err
	}
	f.signal()
}

// setReports stores what the watch of the reports yielded. No error is fatal: the instances
// are worth showing without reports.
func (f *feed) setReports(reports discovery.Reports, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.reports.Stale = err
	} else {
		f.reports = reports
	}
	f.reported = true
	f.signal()
}

func (f *feed) signal() {
	select {
	case f.changed <- struct{}{}:
	default: // it has a signal already
	}
}

// view returns the current view; ok is false as long as there is none.
func (f *feed) view(now time.Time) (v instancesView, ok bool, err error) {
	f.mu.Lock()
	list, reports, ok, err := f.list, f.reports, f.listed && f.reported, f.err
	f.mu.Unlock()
	if err != nil {
		return instancesView{}, false, fmt.Errorf("listing the instances of %v: %w", f.endpoint, err)
	}
	if !ok {
		return instancesView{}, false, nil
	}
	v = newInstancesView(f.endpoint, list, reports, now)
	v.where = f.where
	return v, true, nil
}
