package storetest

import (
	"context"
	"errors"
	"iter"
	"sync"

	"github.com/request-migration/migrate/pkg/discovery"
)

// An outage is that of one [discovery.Mem], which has none itself.
type outage struct {
	mu      sync.Mutex
	err     error
	changed chan struct{} // closed, and made anew, with err
}

// outages has those of each Mem, which has no place for it.
var outages sync.Map // of *outage, by *discovery.Mem

func outageOf(m *discovery.Mem) *outage {
	o, _ := outages.LoadOrStore(m, &outage{changed: make(chan struct{})})
	return o.(*outage)
}

func (o *outage) set(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err = err
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *outage) get() (<-chan struct{}, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changed, o.err
}

var errOutage = errors.New("the backend is away")

// over yields the sets of a watch that ends with ctx, and the last one again, marked stale,
// while the outage lasts.
func (o *outage) over(ctx context.Context, watch func(context.Context) iter.Seq2[discovery.Snapshot, error]) iter.Seq2[discovery.Snapshot, error] {
	return func(yield func(discovery.Snapshot, error) bool) {
		type pair struct {
			snap discovery.Snapshot
			err  error
		}
		ctx, cancel := context.WithCancel(ctx)
		pairs := make(chan pair)
		var reading sync.WaitGroup
		defer reading.Wait()
		defer cancel()
		reading.Go(func() {
			for snap, err := range watch(ctx) {
				select {
				case pairs <- pair{snap, err}:
				case <-ctx.Done():
					return
				}
			}
		})
		var last discovery.Snapshot
		known := false
		var told error // of the outage
		for {
			changed, away := o.get()
			if known && away != told { //nolint:errorlint // there is one error
				told = away
				if !yield(discovery.Snapshot{Records: last.Records, Stale: away}, nil) {
					return
				}
				continue
			}
			from := pairs
			if away != nil {
				from = nil
			}
			select {
			case p := <-from:
				if known = p.err == nil; known {
					last = p.snap
				}
				if !yield(p.snap, p.err) || p.err != nil {
					return
				}
			case <-changed:
			case <-ctx.Done():
				yield(discovery.Snapshot{}, ctx.Err())
				return
			}
		}
	}
}

func hidesOutages() editFunc {
	return func(_ string, _, snap discovery.Snapshot) (discovery.Snapshot, bool) {
		snap.Stale = nil
		return snap, true
	}
}

func forgetsInOutages() editFunc {
	return func(_ string, _, snap discovery.Snapshot) (discovery.Snapshot, bool) {
		if snap.Stale != nil {
			snap.Records = nil
		}
		return snap, true
	}
}

// waitsForReaders is a store whose Close waits until every watch was left.
type waitsForReaders struct {
	*handle
	readers sync.WaitGroup
}

func closeWaits(shared *discovery.Mem) discovery.Store {
	return &waitsForReaders{handle: asHandle(shared)}
}

func (w *waitsForReaders) Watch(ctx context.Context, prefix string) iter.Seq2[discovery.Snapshot, error] {
	return func(yield func(discovery.Snapshot, error) bool) {
		w.readers.Add(1)
		defer w.readers.Done()
		w.handle.Watch(ctx, prefix)(yield)
	}
}

func (w *waitsForReaders) Close() error {
	err := w.handle.Close()
	w.readers.Wait()
	return err
}
