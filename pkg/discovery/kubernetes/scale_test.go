package kubernetes

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/kubernetes/kubetest"
)

// TestFleetAtRest counts what a fleet of servers, each with a store of its own, and one
// client ask of the API server while nothing happens: each server renews its Lease every
// 3 s, and all together list them about every 3 s to remove dead ones.
func TestFleetAtRest(t *testing.T) {
	server := startServer(t, kubetest.Config{})
	cfg := admin(server)
	cfg.LeaseTTL = 10 * time.Second // the default
	watch := observe(t, openStore(t, cfg))
	var stores []*Store
	for _, fleet := range []int{50, 100, 200} {
		began := time.Now()
		stores = append(stores, joinFleet(t, cfg, len(stores), fleet)...)
		watch.until(fmt.Sprintf("%d records", fleet), func(snap discovery.Snapshot) bool {
			return snap.Stale == nil && len(snap.Records) == fleet
		})
		joined := time.Since(began)

		const rest = 9 * time.Second // three renewals each
		before := leaseRequests(t, server)
		began = time.Now()
		time.Sleep(rest)
		after, took := leaseRequests(t, server), time.Since(began).Seconds()
		rate := func(verb string) float64 { return float64(after[verb]-before[verb]) / took }
		t.Logf("%d servers, the last joined after %v: %.1f requests/s: %.1f renewals, %.1f lists, %.1f others",
			fleet, joined.Round(time.Millisecond), rate(""), rate("PUT"), rate("LIST"), rate("")-rate("PUT")-rate("LIST"))
		// A machine that is busy makes fewer, never more.
		if most := float64(fleet)/3*1.2 + 5; rate("") > most {
			t.Errorf("%d servers at rest make %.1f requests/s, want %.1f at the most", fleet, rate(""), most)
		}
		if rate("PUT") == 0 {
			t.Errorf("%d servers renewed nothing in %.1f s", fleet, took)
		}
	}
}

// joinFleet opens stores and puts a record with each, until there are n.
func joinFleet(tb testing.TB, cfg Config, have, n int) []*Store {
	tb.Helper()
	stores := make([]*Store, n-have)
	for i := range stores {
		stores[i] = openStore(tb, cfg)
	}
	var wg sync.WaitGroup
	for i, s := range stores {
		wg.Go(func() {
			key := fmt.Sprintf("%s%x", prefix, have+i+1)
			if _, err := s.Put(tb.Context(), key, []byte(`{"name":"server"}`), 0); err != nil {
				tb.Errorf("Put %s: %v", key, err)
			}
		})
	}
	wg.Wait()
	if tb.Failed() {
		tb.FailNow()
	}
	return stores
}

// leaseRequests returns how many requests for Leases the server has answered, by verb, and
// in all as "".
func leaseRequests(tb testing.TB, s *kubetest.Server) map[string]int {
	tb.Helper()
	status, text, err := s.Request(tb.Context(), http.MethodGet, "/metrics", "", nil)
	if err != nil || status != http.StatusOK {
		tb.Fatalf("GET /metrics: status %d, %v", status, err)
	}
	counts := map[string]int{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if !strings.HasPrefix(line, "apiserver_request_total{") || !strings.Contains(line, `resource="leases"`) {
			continue
		}
		_, after, _ := strings.Cut(line, `verb="`)
		verb, _, _ := strings.Cut(after, `"`)
		n, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			tb.Fatalf("%s: %v", line, err)
		}
		counts[verb] += int(n)
		counts[""] += int(n)
	}
	if err := lines.Err(); err != nil {
		tb.Fatal(err)
	}
	return counts
}
