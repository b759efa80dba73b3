package storetest

import (
	"context"
	"errors"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// aliasing yields the same bytes that Put was given, not a copy.
type aliasing struct {
	*handle
	values map[string][]byte
}

func valueNotCopied(shared *discovery.Mem) discovery.Store {
	return &aliasing{asHandle(shared), make(map[string][]byte)}
}

func (a *aliasing) Put(ctx context.Context, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	a.mu.Lock()
	a.values[key] = value
	a.mu.Unlock()
	return a.handle.Put(ctx, key, value, ttl)
}

func (a *aliasing) Watch(ctx context.Context, prefix string) iter.Seq2[discovery.Snapshot, error] {
	return mapSets(a.handle.Watch(ctx, prefix), func(snap discovery.Snapshot) discovery.Snapshot {
		a.mu.Lock()
		defer a.mu.Unlock()
		out := discovery.Snapshot{}
		for _, r := range snap.Records {
			if value, ok := a.values[r.Key]; ok {
				r.Value = value
			}
			out.Records = append(out.Records, r)
		}
		return out
	})
}

func mapSets(watch iter.Seq2[discovery.Snapshot, error], f func(discovery.Snapshot) discovery.Snapshot) iter.Seq2[discovery.Snapshot, error] {
	return func(yield func(discovery.Snapshot, error) bool) {
		for snap, err := range watch {
			if err == nil {
				snap = f(snap)
			}
			if !yield(snap, err) {
				return
			}
		}
	}
}

// watching breaks Watch as a whole.
type watching struct {
	*handle
	watch func(ctx context.Context, h *handle, prefix string) iter.Seq2[discovery.Snapshot, error]
}

func (w *watching) Watch(ctx context.Context, prefix string) iter.Seq2[discovery.Snapshot, error] {
	return w.watch(ctx, w.handle, prefix)
}

// backlogged yields every set, however slow its reader is.
type backlogged struct{ *handle }

func backlog(shared *discovery.Mem) discovery.Store { return backlogged{asHandle(shared)} }

// Put lets time pass, so that the watches see every set.
func (b backlogged) Put(ctx context.Context, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	lease, err := b.handle.Put(ctx, key, value, ttl)
	<-time.After(time.Millisecond)
	return lease, err
}

func (b backlogged) Watch(ctx context.Context, prefix string) iter.Seq2[discovery.Snapshot, error] {
	type pair struct {
		snap discovery.Snapshot
		err  error
	}
	return func(yield func(discovery.Snapshot, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		pairs := make(chan pair, 1000)
		var reader sync.WaitGroup
		reader.Go(func() {
			for snap, err := range b.handle.Watch(ctx, prefix) {
				pairs <- pair{snap, err}
			}
		})
		defer reader.Wait()
		defer cancel()
		for p := range pairs {
			if !yield(p.snap, p.err) || p.err != nil {
				return
			}
		}
	}
}

// oneWatch ends all watches of a store with the first that ends.
func oneWatch(shared *discovery.Mem) discovery.Store {
	var cancels []context.CancelFunc
	return &watching{asHandle(shared), func(ctx context.Context, h *handle, prefix string) iter.Seq2[discovery.Snapshot, error] {
		return func(yield func(discovery.Snapshot, error) bool) {
			both, cancel := context.WithCancel(ctx)
			h.mu.Lock()
			cancels = append(cancels, cancel)
			h.mu.Unlock()
			h.Watch(both, prefix)(yield)
			h.mu.Lock()
			defer h.mu.Unlock()
			for _, cancel := range cancels {
				cancel()
			}
		}
	}}
}

// breakHeldUp yields nothing once a reader has broken off a watch.
func breakHeldUp(shared *discovery.Mem) discovery.Store {
	var left atomic.Bool
	return &watching{asHandle(shared), func(ctx context.Context, h *handle, prefix string) iter.Seq2[discovery.Snapshot, error] {
		return func(yield func(discovery.Snapshot, error) bool) {
			if left.Load() {
				<-ctx.Done()
				yield(discovery.Snapshot{}, ctx.Err())
				return
			}
			h.Watch(ctx, prefix)(func(snap discovery.Snapshot, err error) bool {
				more := yield(snap, err)
				left.Store(!more)
				return more
			})
		}
	}}
}

// flaps calls a set stale, and current again, while nobody writes.
func flaps(shared *discovery.Mem) discovery.Store {
	return &watching{asHandle(shared), func(ctx context.Context, h *handle, prefix string) iter.Seq2[discovery.Snapshot, error] {
		return func(yield func(discovery.Snapshot, error) bool) {
			var last discovery.Snapshot
			for {
				round, cancel := context.WithTimeout(ctx, renewEvery)
				for snap, err := range h.Watch(round, prefix) {
					if err != nil && ctx.Err() == nil && h.ctx.Err() == nil {
						break // only this round's time is over
					}
					if last = snap; !yield(snap, err) || err != nil {
						cancel()
						return
					}
				}
				cancel()
				last.Stale = errors.New("no answer")
				if !yield(last, nil) {
					return
				}
			}
		}
	}}
}

// contextForgotten looks at the context only at the beginning.
func contextForgotten(shared *discovery.Mem) discovery.Store {
	return &watching{asHandle(shared), func(ctx context.Context, h *handle, prefix string) iter.Seq2[discovery.Snapshot, error] {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Hour)
		_ = cancel // the watch ends after an hour
		return h.Watch(ctx, prefix)
	}}
}

// anyPrefix watches something even if the prefix is wrong.
func anyPrefix(shared *discovery.Mem) discovery.Store {
	return &watching{asHandle(shared), func(ctx context.Context, h *handle, prefix string) iter.Seq2[discovery.Snapshot, error] {
		if discovery.CheckPrefix(prefix) != nil {
			prefix = ep
		}
		return h.Watch(ctx, prefix)
	}}
}

// endsQuietly ends its watches without an error.
func endsQuietly(shared *discovery.Mem) discovery.Store {
	return &watching{asHandle(shared), func(ctx context.Context, h *handle, prefix string) iter.Seq2[discovery.Snapshot, error] {
		return func(yield func(discovery.Snapshot, error) bool) {
			for snap, err := range h.Watch(ctx, prefix) {
				if err != nil || !yield(snap, nil) {
					return
				}
			}
		}
	}}
}

// closing breaks Close, or what Close should leave behind.
type closing struct {
	*handle
	close func(*handle)
}

func (c *closing) Close() error { c.close(c.handle); return nil }

func keptAfterClose(shared *discovery.Mem) discovery.Store {
	return &closing{asHandle(shared), func(h *handle) { h.end() }}
}

func closeTakesAll(shared *discovery.Mem) discovery.Store {
	return &closing{asHandle(shared), func(h *handle) {
		_ = h.Close()
		for snap, err := range h.Mem.Watch(context.Background(), "v1/instances/") {
			if err != nil {
				return
			}
			for _, r := range snap.Records {
				_ = byKey{h, r.Key}.Release(context.Background())
			}
			break
		}
	}}
}

func openAfterClose(shared *discovery.Mem) discovery.Store {
	return &closing{asHandle(shared), func(h *handle) { h.kill() }}
}

func goroutineLeft(shared *discovery.Mem) discovery.Store {
	return &closing{asHandle(shared), func(h *handle) {
		_ = h.Close()
		go func() { <-time.After(time.Hour) }()
	}}
}

// immortal outlives being killed.
type immortal struct{ *handle }

func (immortal) kill() {}

func neverKilled(shared *discovery.Mem) discovery.Store { return immortal{asHandle(shared)} }
