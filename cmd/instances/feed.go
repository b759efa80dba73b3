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

// watchRetry is the pause before a watch that has ended is begun again. While
// the store is away it goes on by itself; this is for what it does not expect.
const watchRetry = time.Second

// feed is the newest of what two watches have yielded: who is listed and who is
// reported. It is safe for concurrent use.
type feed struct {
	endpoint discovery.Endpoint
	where    string // the store that is looked in
	// changed has a value when there is something new.
	changed chan struct{}

	mu       sync.Mutex
	list     discovery.Instances
	reports  discovery.Reports
	listed   bool // list has been read
	reported bool // reports have, or it is known that they can't be
	err      error
}

// follow calls show with a feed that is kept current until show returns, which
// is what follow returns.
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

// keepWatching hands on what a watch yields until ctx ends, and begins it again
// should it end before.
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

// setList takes over what the watch of the instances yielded. That they can't be
// read at all is the end only if they never were.
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

// setReports does the same with the reports. Who is alive is worth showing
// without them.
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
	default: // there is something new already
	}
}

// view returns what there is to show, and whether there is anything yet.
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
