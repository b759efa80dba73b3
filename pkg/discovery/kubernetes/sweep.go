package kubernetes

import (
	"context"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	// A store sweeps every 3 s for each kept record in the namespace, so that a fleet
	// of any size lists its records about every 3 s in all, within these bounds.
	sweepEach = 3 * time.Second
	minSweep  = 30 * time.Second
	maxSweep  = 30 * time.Minute

	// sweepLooks is how often a sweep looks at a Lease that seems dead, over the
	// Lease's time. An API server that hangs in between can't hide a renewal from all.
	sweepLooks = 4
	// maxSwept is how many Leases one sweep removes.
	maxSwept = 200
)

// startSweeper starts the sweeper of this store. It runs until Close, whoever calls it
// first.
func (s *Store) startSweeper() {
	s.sweeper.Do(func() {
		ctx, leave, err := s.life.Enter(s.life.Context)
		if err != nil {
			return // closed
		}
		go func() {
			defer leave()
			s.sweepOn(ctx, minSweep)
		}()
	})
}

// sweepOn sweeps until ctx ends.
func (s *Store) sweepOn(ctx context.Context, every time.Duration) {
	for {
		timer := time.NewTimer(every/2 + rand.N(every))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		kept, err := s.sweep(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Debug("could not remove dead records", "error", err)
		}
		every = min(max(time.Duration(kept)*sweepEach, minSweep), maxSweep)
	}
}

// sweep removes the records of dead owners, and those whose ttl has passed. It returns
// the number of kept records.
func (s *Store) sweep(ctx context.Context) (kept int, err error) {
	l, err := s.listAll(ctx, managerLabel+"="+manager, true)
	if err != nil {
		return 0, err
	}
	now := s.clock.now()
	var suspects []object
	for _, o := range l.objects {
		if o.kept != nil {
			kept++
			// The API server's clock is only a hint: what counts is that this store
			// sees no renewal for as long as the Lease lasts.
			if o.kept.lifetime > 0 && now.Sub(o.kept.renewed) > o.kept.lifetime+clockSlack && len(suspects) < maxSwept {
				suspects = append(suspects, o)
			}
			continue
		}
		var gone []briefValue
		for _, b := range o.briefs {
			// Nobody renews it. A ttl of slack lets no reader miss its end.
			if now.Sub(b.Until) > s.cfg.LeaseTTL {
				gone = append(gone, b)
			}
		}
		if len(gone) == 0 {
			continue
		}
		if err := s.prune(ctx, o, gone); err != nil {
			return kept, err
		}
		s.log.Debug("removed records that had expired", "object", o.name, "records", len(gone))
	}
	return kept, s.sweepDead(ctx, suspects)
}

// sweepDead removes those Leases that nobody renews while it looks on.
func (s *Store) sweepDead(ctx context.Context, suspects []object) error {
	var lifetime time.Duration
	for _, o := range suspects {
		lifetime = max(lifetime, o.kept.lifetime)
	}
	for range sweepLooks {
		if len(suspects) == 0 {
			return nil
		}
		timer := time.NewTimer(lifetime / (sweepLooks - 1))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		still := suspects[:0]
		for _, o := range suspects {
			found, err := s.find(ctx, o.name)
			if err != nil {
				return err
			}
			if found.uid == o.uid && found.version == o.version {
				still = append(still, o)
			}
		}
		suspects = still
	}
	for _, o := range suspects {
		err := s.call(ctx, "delete", func(ctx context.Context) error {
			return s.access.remove(ctx, o.name, o.uid, o.version)
		})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			continue // somebody else was faster, or its owner lives
		}
		if err != nil {
			return err
		}
		s.log.Debug("removed the record of a dead owner", "key", o.kept.key, "holder", o.holder)
	}
	return nil
}
