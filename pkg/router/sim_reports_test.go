package router

import (
	"context"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// simReporter is the reporter of the simulation's router.
const simReporter = "router"

// otherReports lets another client report an instance, or take a report back.
func (s *sim) otherReports(rng *rand.Rand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.reports); n > 0 && rng.IntN(4) == 0 {
		k := rng.IntN(n)
		if s.reports[k].Reporter != simReporter {
			s.reports = append(s.reports[:k:k], s.reports[k+1:]...)
			s.count("report ended early")
			s.tell()
		}
		return
	}
	if len(s.shown) == 0 {
		return
	}
	i := s.shown[rng.IntN(len(s.shown))]
	now := time.Now()
	s.publishes(discovery.Report{
		Endpoint: testEndpoint, Instance: i.ID, Incarnation: i.Incarnation, Reporter: []string{"a", "b", "c"}[rng.IntN(3)],
		Kind: string(simKinds[rng.IntN(len(simKinds))]), Reason: "as the script has it",
		Since: now, Until: now.Add(time.Millisecond + upTo(rng, 20*time.Second)),
	})
	s.count("reported by another")
	s.tell()
}

// publishes puts a report in place of its reporter's last about the instance.
// The caller holds mu.
func (s *sim) publishes(r discovery.Report) {
	reports := []discovery.Report{r}
	for _, other := range s.reports {
		if (other.Reporter != r.Reporter || other.Instance != r.Instance) && other.Until.After(time.Now()) {
			reports = append(reports, other)
		}
	}
	s.reports = reports
}

// tell lets the router see what reports there are. The caller holds mu.
func (s *sim) tell() {
	now := time.Now()
	var all []heard
	for _, r := range s.reports {
		if r.Reporter == simReporter {
			continue
		}
		if limit := r.Since.Add(max(s.cfg.Cooldown, s.cfg.MaxCooldown)); limit.Before(r.Until) {
			r.Until = limit
		}
		h := heard{Report: r, seen: now}
		for _, known := range s.heard {
			if known.Report == r {
				h = known
			}
		}
		if h.Until.After(now) {
			all = append(all, h)
		}
	}
	s.heard = all
	s.heed()
	close(s.told)
	s.told = make(chan struct{})
}

// heed makes half-open what others have reported. The caller holds mu.
func (s *sim) heed() {
	for n := range s.heard {
		h := &s.heard[n]
		for _, i := range s.shown {
			if !h.heeded && h.Instance == i.ID && h.Incarnation == i.Incarnation && h.Until.After(time.Now()) {
				h.heeded = true
				k := s.know(i)
				k.half, k.halfSince = true, time.Now()
			}
		}
	}
}

// Report implements [Reports]: it is what the router tells others.
func (s *sim) Report(_ context.Context, r discovery.Report) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.known[identity{r.Instance, r.Incarnation}]
	switch {
	case k == nil || !k.down.Since.Equal(r.Since) || !k.down.Until.Equal(r.Until):
		s.violate("the router reports %v until %v, which has not failed so", r.Instance, r.Until)
	case s.private[r.Since.UnixNano()]:
		s.violate("the router shares its own affair about %v", r.Instance)
	}
	s.seen["shared"]++
	s.publishes(r)
	s.tell()
	return nil
}

// WatchReports implements [Reports].
func (s *sim) WatchReports(ctx context.Context, _ discovery.Endpoint, _ time.Duration) iter.Seq2[discovery.Reports, error] {
	return func(yield func(discovery.Reports, error) bool) {
		for ctx.Err() == nil {
			s.mu.Lock()
			list, told := s.reports, s.told
			s.mu.Unlock()
			if !yield(discovery.Reports{List: list}, nil) {
				return
			}
			select {
			case <-told:
			case <-ctx.Done():
			}
		}
	}
}

// isReported notes a break, and reports whether the instance is reported down for
// it. The caller holds mu.
func (s *sim) isReported(i discovery.Instance, b *stream.Break) (reported bool) {
	if b.NoReport || b.Kind == stream.Local {
		s.seen["broken, not reported"]++
		return false
	}
	wasDown := s.know(i).isDown
	s.putDown(i, b.Kind)
	if b.NoShare && !wasDown {
		s.private[time.Now().UnixNano()] = true
	}
	return true
}
