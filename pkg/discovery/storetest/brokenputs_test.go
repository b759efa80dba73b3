package storetest

import (
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

// noLease is a lease that holds nothing.
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
