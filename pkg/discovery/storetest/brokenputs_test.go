package storetest

import (
	"bytes"
	"context"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// puts breaks what Put does.
func puts(put putFunc) func(*discovery.Mem) discovery.Store {
	return func(shared *discovery.Mem) discovery.Store { return &brokenPuts{asHandle(shared), put} }
}

type putFunc func(ctx context.Context, h *handle, key string, value []byte, ttl time.Duration) (discovery.Lease, error)

type brokenPuts struct {
	*handle
	put putFunc
}

func (b *brokenPuts) Put(ctx context.Context, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	return b.put(ctx, b.handle, key, value, ttl)
}

func firstStands(ctx context.Context, h *handle, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	for snap, err := range h.Mem.Watch(ctx, "v1/instances/") {
		if err != nil {
			return nil, err
		}
		for _, r := range snap.Records {
			if r.Key == key {
				return noLease{}, nil
			}
		}
		break
	}
	return h.Put(ctx, key, value, ttl)
}

func noTTL(ctx context.Context, h *handle, key string, value []byte, _ time.Duration) (discovery.Lease, error) {
	return h.Put(ctx, key, value, 0)
}

func halfTTL(ctx context.Context, h *handle, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	return h.Put(ctx, key, value, ttl/2)
}

func allTTL(ctx context.Context, h *handle, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	if ttl == 0 {
		ttl = 10 * time.Second
	}
	return h.Put(ctx, key, value, ttl)
}

func anyRecord(ctx context.Context, h *handle, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	if lease, err := h.Put(ctx, key, value, ttl); err == nil {
		return lease, nil
	}
	return noLease{}, nil
}

func noRelease(ctx context.Context, h *handle, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	_, err := h.Put(ctx, key, value, ttl)
	return noLease{}, err
}

func anyLease(ctx context.Context, h *handle, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	_, err := h.Put(ctx, key, value, ttl)
	return byKey{h, key}, err
}

// noLease is a lease that releases nothing.
type noLease struct{}

func (noLease) Release(context.Context) error { return nil }

// byKey releases whatever stands under its key.
type byKey struct {
	h   *handle
	key string
}

func (l byKey) Release(ctx context.Context) error {
	if lease, err := l.h.Mem.Put(ctx, l.key, []byte("x"), 0); err == nil {
		return lease.Release(ctx)
	}
	return nil
}

// replacedForGood forgets a record that another owner has replaced.
func replacedForGood(ctx context.Context, h *handle, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	lease, err := h.Put(ctx, key, value, ttl)
	if err == nil && ttl == 0 {
		ours := string(value)
		h.work.Go(func() {
			for snap, err := range h.Mem.Watch(h.ctx, ep) {
				if err != nil {
					return
				}
				for _, r := range snap.Records {
					if r.Key == key && string(r.Value) != ours {
						h.mu.Lock()
						delete(h.kept, key)
						h.mu.Unlock()
						return
					}
				}
			}
		})
	}
	return lease, err
}

// fights puts its record again at once when another owner has replaced it.
func fights(ctx context.Context, h *handle, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	lease, err := h.Put(ctx, key, value, ttl)
	if err == nil && ttl == 0 {
		ours := bytes.Clone(value)
		h.work.Go(func() { putAgain(h, key, ours) })
	}
	return lease, err
}

func putAgain(h *handle, key string, value []byte) {
	for range 20 {
		select {
		case <-time.After(renewEvery):
		case <-h.ctx.Done():
			return
		}
		_, _ = h.Mem.Put(h.ctx, key, value, 0)
	}
}

// comesBack puts a record again that was released while another owner had the key.
func comesBack(ctx context.Context, h *handle, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	lease, err := h.Put(ctx, key, value, ttl)
	if err != nil || ttl > 0 {
		return lease, err
	}
	ours := string(value)
	return leaseFunc(func(ctx context.Context) error {
		if string(h.find(key)) == ours {
			return lease.Release(ctx)
		}
		return nil
	}), nil
}

type leaseFunc func(context.Context) error

func (f leaseFunc) Release(ctx context.Context) error { return f(ctx) }

// neverRenews does not renew its records.
func neverRenews(shared *discovery.Mem) discovery.Store {
	h := asHandle(shared)
	h.renews = false
	return h
}

func putWithoutContext(ctx context.Context, h *handle, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	return h.Put(context.WithoutCancel(ctx), key, value, ttl)
}
