package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/request-migration/migrate/pkg/discovery"
)

func concurrentUse(s *suite) {
	store := s.open()
	stores := []discovery.Store{store}
	if s.Join != nil {
		stores = append(stores, s.join(store))
	}
	const owners, rounds = 4, 8
	ctx := s.soon()
	watching, stop := context.WithCancel(ctx)
	var watchers, workers sync.WaitGroup
	final := want{}
	for i, store := range stores {
		for j := range 2 {
			watchers.Go(func() {
				for snap, err := range store.Watch(watching, ep) {
					if err != nil && !errors.Is(err, context.Canceled) {
						s.Errorf("watch %d of store %d ended: %v", j, i, err)
					}
					for _, r := range snap.Records {
						_ = string(r.Value) // for the race detector
					}
				}
			})
		}
		for j := range owners {
			own := fmt.Sprintf("%sown-%d-%d", ep, i, j)
			final[own] = fmt.Sprint(rounds - 1)
			workers.Go(func() {
				for n := range rounds {
					_, err := store.Put(ctx, own, []byte(fmt.Sprint(n)), 0)
					if err != nil {
						s.Errorf("Put: %v", err)
					}
					// All of them put this key.
					shared, err := store.Put(ctx, ep+"shared", []byte(own), 0)
					if err != nil {
						s.Errorf("Put: %v", err)
						return
					}
					if err := shared.Release(ctx); err != nil {
						s.Errorf("Release: %v", err)
					}
				}
			})
		}
	}
	workers.Wait()
	stop()
	watchers.Wait()
	s.stands(stores[len(stores)-1], ep, final)
}
