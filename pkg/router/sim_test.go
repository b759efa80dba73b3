package router

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/request-migration/migrate/pkg/stream"
)

// TestSimulation runs a router against scripted servers in fake time, thousands
// of times. From a seed it draws instances, latencies, breaks of every kind at
// every position, joins, leaves, restarts, outages of discovery, reports from
// outside, cancellations, and how the router is set up; then it holds what the
// router does against what the servers know. A seed always gives the same run:
//
//	SEED=4711 go test ./pkg/router -run 'TestSimulation$'
//
// SEEDS=1000000 looks further than an ordinary run does.
func TestSimulation(t *testing.T) {
	if seed := os.Getenv("SEED"); seed != "" {
		s := runSeed(t, number(t, seed))
		t.Logf("seed %s:\n%s", seed, s.transcript())
		s.report(t)
		return
	}
	seeds := uint64(simSeeds)
	if n := os.Getenv("SEEDS"); n != "" {
		seeds = number(t, n)
	}
	var (
		last   atomic.Uint64
		failed atomic.Bool
		mu     sync.Mutex
		seen   = make(map[string]int)
		wg     sync.WaitGroup
	)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for !failed.Load() {
				seed := last.Add(1)
				if seed > seeds {
					return
				}
				s := runSeed(t, seed)
				if s.violation != "" {
					failed.Store(true)
				}
				s.report(t)
				mu.Lock()
				for what, n := range s.seen {
					seen[what] += n
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for _, what := range slices.Sorted(maps.Keys(seen)) {
		t.Logf("%7d %s", seen[what], what)
	}
	if failed.Load() || seeds < 500 {
		return
	}
	for _, what := range simMustSee() {
		if seen[what] == 0 {
			t.Errorf("in %d seeds there was no %s: the simulation misses what it is for", seeds, what)
		}
	}
}

// simMustSee is what a good number of seeds must have shown.
func simMustSee() []string {
	all := []string{
		"joined", "left", "came back", "restarted", "reported", "outage", "stale", "recovered",
		"by index", "by prefix", "by prefix at a real server", "by replay", "by replay after a refusal", "diverged", "too long to be kept", "restarted from 0", "only the end lost", "before the first item",
		"waited for a first instance", "waited for one to return", "left the loop", "of another transport",
		"double cooldown", "report of one that was replaced", "changed",
		"reported by another", "report ended early", "shared", "broken, not reported", "trial decided", "paused", "stale connection",
		"ready", "passed over", "reported, yet asked", "lost, yet asked", "brought back", "panic",
	}
	for _, k := range []stream.Kind{stream.Misdirected, stream.Unresumable, stream.Local} {
		all = append(all, "direct "+string(k))
	}
	for _, k := range simServerKinds {
		all = append(all, "of a real server "+string(k))
	}
	for _, end := range append(simEnds, nil) {
		all = append(all, "ended: "+fmt.Sprint(end))
	}
	for _, k := range simKinds {
		all = append(all, "direct "+string(k), "on the wire "+string(k))
	}
	return all
}

// report fails the test if the run has shown a violation.
func (s *sim) report(t *testing.T) {
	t.Helper()
	if s.violation != "" {
		t.Errorf("seed %d: %s\nto replay it alone: SEED=%d go test ./pkg/router -run 'TestSimulation$'",
			s.seed, s.violation, s.seed)
	}
}

// A seed that does not replay is worth nothing.
func TestSimulationReplays(t *testing.T) {
	for seed := range uint64(simSeeds / 20) {
		first, second := runSeed(t, seed).transcript(), runSeed(t, seed).transcript()
		if first != second {
			t.Fatalf("two runs of seed %d differ:\n%s\n\n%s", seed, first, second)
		}
	}
}

// runSeed runs one simulation in a bubble of its own, and notices if a
// goroutine is left behind in it.
func runSeed(t *testing.T, seed uint64) (s *sim) {
	t.Helper()
	s = newSim(seed)
	defer func() {
		if p := recover(); p != nil {
			s.violation = fmt.Sprintf("panic: %v", p)
		}
	}()
	synctest.Test(t, func(*testing.T) { s.run() })
	return s
}

// transcript returns what has happened. What happens in one nanosecond has no
// order but that of its lines.
func (s *sim) transcript() string {
	slices.Sort(s.lines)
	return strings.Join(s.lines, "\n")
}

func number(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

var simKinds = []stream.Kind{
	stream.Unreachable, stream.Unresponsive, stream.Truncated, stream.Reset, stream.Stalled, stream.Failed,
	stream.Protocol, stream.Overloaded, stream.Draining, stream.Application,
}
