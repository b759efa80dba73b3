package router

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// history lets things happen to the instances and to discovery, and checks the
// tiers after each.
func (s *sim) history(rng *rand.Rand) {
	const span = 30 * time.Second
	times := make([]time.Duration, rng.IntN(16))
	for i := range times {
		times[i] = 1 + upTo(rng, span)
	}
	slices.Sort(times)
	for _, at := range times {
		time.Sleep(at - time.Since(s.begin))
		synctest.Wait()
		s.checkTiers()
		s.happens(rng)
		synctest.Wait()
		s.checkTiers()
	}
	if !s.hasShown() && s.outage == nil {
		s.publish() // for those who wait without a bound
	}
}

func (s *sim) happens(rng *rand.Rand) {
	switch rng.IntN(13) {
	case 0, 1:
		s.join(rng)
	case 2:
		s.leave(rng)
	case 3:
		s.comeBack(rng)
	case 4:
		s.restart(rng)
	case 5, 6:
		s.reportDown(rng)
		return
	case 7:
		s.outage = fmt.Errorf("%w no. %d", errBoom, rng.IntN(100))
	case 8:
		s.outage = nil
		s.counted("recovered")
	case 9, 10:
		if s.cfg.Reports != nil {
			s.otherReports(rng)
		}
		return
	case 11:
		s.change(rng)
	case 12:
		for range len(s.listed) * 2 / 3 {
			s.leave(rng)
		}
	}
	switch {
	case s.outage == nil:
		s.publish()
	case s.hasShown() && rng.IntN(2) == 0:
		s.counted("stale")
		s.source.change(&discovery.Instances{List: slices.Clone(s.shown), Stale: s.outage}, nil)
	default:
		s.counted("outage")
		s.source.change(nil, s.outage)
	}
}

// publish lets the source show what there is.
func (s *sim) publish() {
	slices.SortFunc(s.listed, func(a, b discovery.Instance) int { return cmp.Compare(a.ID, b.ID) })
	s.source.list(slices.Clone(s.listed)...)
}

func (s *sim) join(rng *rand.Rand) {
	s.instances++
	i := instance(s.instances)
	switch rng.IntN(10) {
	case 0:
		i.Transport = "tcp"
	case 1, 2:
		i.Resume = discovery.ResumeNo
	case 3, 4, 5:
		i.Resume = discovery.ResumeIndex
	case 6, 7:
		i.Resume = discovery.ResumePrefix
	}
	if rng.IntN(2) == 0 {
		i.Incarnation = "first"
	}
	s.listed = append(s.listed, i)
	s.counted("joined")
}

func (s *sim) leave(rng *rand.Rand) {
	if n := len(s.listed); n > 0 {
		k := rng.IntN(n)
		s.away = append(s.away, s.listed[k])
		s.listed = slices.Delete(s.listed, k, k+1)
		s.counted("left")
	}
}

func (s *sim) comeBack(rng *rand.Rand) {
	if n := len(s.away); n > 0 {
		k := rng.IntN(n)
		s.listed = append(s.listed, s.away[k])
		s.away = slices.Delete(s.away, k, k+1)
		s.counted("came back")
	}
}

func (s *sim) restart(rng *rand.Rand) {
	if n := len(s.listed); n > 0 {
		k := rng.IntN(n)
		s.listed[k].Address += "'"
		s.listed[k].Incarnation += "+"
		s.counted("restarted")
	}
}

// change changes the record of an instance that goes on running.
func (s *sim) change(rng *rand.Rand) {
	if n := len(s.listed); n > 0 {
		s.listed[rng.IntN(n)].Address += "~"
		s.counted("changed")
	}
}

// reportDown reports an instance as somebody outside would.
func (s *sim) reportDown(rng *rand.Rand) {
	s.mu.Lock()
	if len(s.shown) == 0 {
		s.mu.Unlock()
		return
	}
	i := s.shown[rng.IntN(len(s.shown))]
	down := s.know(i).isDown
	s.putDown(i, stream.Failed)
	s.mu.Unlock()
	if s.r.ReportDown(i.ID, stream.Failed) == down {
		s.fail("a report of %s counts as new: %v", label(i), !down)
	}
	s.counted("reported")
}

// count counts what is worth seeing. The caller holds mu.
func (s *sim) count(what string) {
	s.seen[what]++
	s.note("%s", what)
}

func (s *sim) counted(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(what)
}

// lostSome reports whether the router may know instances that discovery has
// lost. The caller holds mu.
func (s *sim) lostSome() bool {
	for _, k := range s.known {
		if !k.left.IsZero() {
			return true
		}
	}
	return false
}
