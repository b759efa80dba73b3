package router

import (
	"context"
	"iter"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// askAll makes n requests at once and returns how many went to each address.
func askAll(t *testing.T, r *Router, client *servers, n int) map[string]int {
	t.Helper()
	before := len(client.calls)
	var all sync.WaitGroup
	for range n {
		all.Go(func() { _, _ = ask(t.Context(), r, hello()) }) // where it goes is what counts
	}
	synctest.Wait()
	asked := make(map[string]int)
	client.mu.Lock()
	for _, addr := range client.calls[before:] {
		asked[addr]++
	}
	client.mu.Unlock()
	all.Wait()
	return asked
}

// hung takes a request and says nothing until the start timeout.
func hung(ctx context.Context, req stream.Request, send func(string) bool) error {
	return after(stream.DefaultStartTimeout, breaking(stream.Unresponsive, 0))(ctx, req, send)
}

// One request tries an instance that is back from its cooldown. Until that is
// decided, the others go elsewhere.
func TestOneRequestTriesWhoIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{"server1": hung, "server2": whole}}
		r := start(t, Config{Source: newListing(instances(2)...), Client: client})
		synctest.Wait()
		for range 3 {
			r.ReportDown(1, stream.Unresponsive)
			sleep(DefaultCooldown)
			wantAvail(t, r, "server1 server2")
			asked := askAll(t, r, client, 50)
			if asked["server1"] != 1 || asked["server2"] != 49 {
				t.Errorf("asked %v, want one trial", asked)
			}
		}
	})
}

// If no other instance is left, all requests go to the one on trial.
func TestHalfOpenIsBetterThanNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{"server1": after(time.Second, whole)}}
		r := start(t, Config{Source: newListing(instance(1)), Client: client})
		synctest.Wait()
		r.ReportDown(1, stream.Unresponsive)
		sleep(DefaultCooldown)
		if asked := askAll(t, r, client, 5); asked["server1"] != 5 {
			t.Errorf("asked %v", asked)
		}
	})
}

// A trial that ends late does not end the next one.
func TestTrialsAreToldApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{
			"server1": func(ctx context.Context, req stream.Request, send func(string) bool) error {
				req.Hooks.Started()
				return after(20*time.Second, breaking(stream.Unresumable, 0))(ctx, req, send)
			},
			"server2": whole,
		}}
		r := start(t, Config{Source: newListing(instances(2)...), Client: client})
		synctest.Wait()
		var all sync.WaitGroup
		for range 2 { // the second while the first still waits
			r.ReportDown(1, stream.Failed)
			sleep(DefaultCooldown)
			all.Go(func() { _, _ = ask(t.Context(), r, hello()) }) // it ends at server2
			synctest.Wait()
		}
		sleep(16 * time.Second)
		if asked := askAll(t, r, client, 3); asked["server2"] != 3 {
			t.Errorf("asked %v while the second trial goes on", asked)
		}
		all.Wait()
	})
}

// A stream that shows that the instance serves ends the trial. One that shows nothing
// passes it to the next request.
func TestHowTrialsEnd(t *testing.T) {
	leave := func(ctx context.Context, req stream.Request, _ func(string) bool) error {
		<-ctx.Done()
		return ctx.Err()
	}
	for name, tt := range map[string]struct {
		serve  server
		closed bool
	}{
		"an item":       {after(time.Second, breaking(stream.Draining, 1)), true},
		"the end":       {func(context.Context, stream.Request, func(string) bool) error { return nil }, true},
		"overloaded":    {breaking(stream.Overloaded, 0), true},
		"application":   {breaking(stream.Application, 0), true},
		"draining":      {breaking(stream.Draining, 0), false},
		"unresumable":   {breaking(stream.Unresumable, 0), false},
		"cancelled":     {leave, false},
		"local trouble": {breaking(stream.Local, 0), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := &servers{by: map[string]server{"server1": tt.serve, "server2": whole}}
				r := start(t, Config{Source: newListing(instances(2)...), Client: client})
				synctest.Wait()
				r.ReportDown(1, stream.Failed)
				sleep(DefaultCooldown)
				p := r.Tiers().Source[0]
				if !p.HalfOpen() {
					t.Fatal("it is back, and not half-open")
				}
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				var chosen []ChosenEvent
				req := traced(&Trace{Chosen: func(e ChosenEvent) { chosen = append(chosen, e) }})
				_, _ = ask(ctx, r, req) // it ends as the table says
				if len(chosen) == 0 || chosen[0].Instance.ID != 1 || !chosen[0].Trial {
					t.Errorf("chosen: %+v, want server1 on trial", chosen)
				}
				if p.HalfOpen() == tt.closed {
					t.Errorf("half-open is %v afterwards", p.HalfOpen())
				}
				if want := map[bool]uint32{true: shut, false: halfOpen}[tt.closed]; p.halfState() != want {
					t.Errorf("it is %d, want %d: the next request takes the trial", p.halfState(), want)
				}
			})
		})
	}
}

// An instance that has owed a start for 250 ms is passed over, so that one that hangs
// delays the requests of a quarter of a second.
func TestWhoOwesAStartIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{"server1": hung, "server2": whole}}
		r := start(t, Config{Source: newListing(instances(2)...), Client: client})
		var all sync.WaitGroup
		for range 20 { // one each 50 ms
			all.Go(func() {
				if got, err := ask(t.Context(), r, hello()); strings.Trim(got, "|") != "hello" || err != nil {
					t.Errorf("got %q, %v", got, err)
				}
			})
			sleep(50 * time.Millisecond)
		}
		if n := strings.Count(client.asked(), "server1"); n != 5 {
			t.Errorf("%d of 20 requests went to the server that hangs, want those of 250 ms: 5", n)
		}
		all.Wait()
	})
}

// A server that starts requests is alive, however long their first items take.
func TestSlowFirstItemIsNoDebt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{
			"server1": func(ctx context.Context, req stream.Request, send func(string) bool) error {
				req.Hooks.Started()
				return after(10*time.Second, whole)(ctx, req, send)
			},
			"server2": whole,
		}}
		r := start(t, Config{Source: newListing(instances(2)...), Client: client})
		synctest.Wait()
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() { _, _ = ask(t.Context(), r, hello()) }) // where it goes is what counts
			sleep(time.Second)
		}
		all.Wait()
		if got := client.asked(); strings.Contains(got, "server2") {
			t.Errorf("asked %s", got)
		}
	})
}

// told is a [Reports] that yields what a test tells it.
type told struct {
	mu      sync.Mutex
	list    []discovery.Report
	changed chan struct{}
	bound   time.Duration // as the router asked for it
}

func newTold() *told { return &told{changed: make(chan struct{})} }

func (w *told) tell(list ...discovery.Report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = list
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *told) Report(context.Context, discovery.Report) error { return nil }

func (w *told) WatchReports(ctx context.Context, _ discovery.Endpoint, bound time.Duration) iter.Seq2[discovery.Reports, error] {
	return func(yield func(discovery.Reports, error) bool) {
		for ctx.Err() == nil {
			w.mu.Lock()
			list, changed := w.list, w.changed
			w.bound = bound
			w.mu.Unlock()
			if !yield(discovery.Reports{List: list}, nil) {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
}

// reportOf returns a report about server1, made now, for a minute.
func reportOf(reporter string, kind stream.Kind) discovery.Report {
	now := time.Now()
	return discovery.Report{
		Endpoint: testEndpoint, Instance: 1, Reporter: reporter, Kind: string(kind), Reason: "as told",
		Since: now, Until: now.Add(time.Minute),
	}
}

// A report of the server's own word takes it out for all clients. What may be due to
// the network of a client takes it out once two clients report it.
func TestWhichReportsTakeOut(t *testing.T) {
	for name, tt := range map[string]struct {
		kinds []stream.Kind // of a report each
		out   bool
	}{
		"failed":             {[]stream.Kind{stream.Failed}, true},
		"protocol":           {[]stream.Kind{stream.Protocol}, true},
		"misdirected":        {[]stream.Kind{stream.Misdirected}, true},
		"unreachable":        {[]stream.Kind{stream.Unreachable}, false},
		"unresponsive":       {[]stream.Kind{stream.Unresponsive}, false},
		"truncated":          {[]stream.Kind{stream.Truncated}, false},
		"reset":              {[]stream.Kind{stream.Reset}, false},
		"stalled":            {[]stream.Kind{stream.Stalled}, false},
		"a newer kind":       {[]stream.Kind{"newer"}, false},
		"two of the network": {[]stream.Kind{stream.Reset, stream.Unreachable}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reports := newTold()
				r := start(t, Config{Source: newListing(instances(2)...), Reports: reports, MaxCooldown: time.Minute})
				list := make([]discovery.Report, len(tt.kinds))
				for i, kind := range tt.kinds {
					list[i] = reportOf(string(rune('a'+i)), kind)
				}
				reports.tell(list...)
				want := "server1 server2"
				if tt.out {
					want = "server2"
				}
				wantAvail(t, r, want)
				if !r.Tiers().Source[0].HalfOpen() {
					t.Error("it is not half-open")
				}
				if tt.out && len(list) == 2 { // while two do
					reports.tell(list[1])
					wantAvail(t, r, "server1 server2")
				}
			})
		})
	}
}

// An instance that a single client can't reach gets one trial, which outweighs the
// report: that client's own path may be cut. A later report is heeded anew.
func TestTrialOutweighsReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports := newTold()
		client := &servers{by: map[string]server{"server1": after(time.Second, whole), "server2": whole}}
		r := start(t, Config{Source: newListing(instances(2)...), Client: client, Reports: reports, MaxCooldown: time.Minute})
		synctest.Wait()
		first := reportOf("a", stream.Unreachable)
		reports.tell(first)
		synctest.Wait()
		if asked := askAll(t, r, client, 10); asked["server1"] != 1 {
			t.Errorf("asked %v, want one trial", asked)
		}
		synctest.Wait()
		if asked := askAll(t, r, client, 10); asked["server1"] != 10 {
			t.Errorf("after the trial: asked %v, want all at server1", asked)
		}
		second := first
		second.Reporter = "b"
		reports.tell(first, second)
		wantAvail(t, r, "server1 server2") // of the two, one is outweighed
		if asked := askAll(t, r, client, 10); asked["server1"] != 1 {
			t.Errorf("of a new report: asked %v, want one trial", asked)
		}
	})
}

// A report is heeded for no longer than one of the router's own could last.
func TestReportsAreHeededForABound(t *testing.T) {
	for _, limit := range []time.Duration{0, 20 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			reports := newTold()
			r := start(t, Config{Source: newListing(instances(2)...), Reports: reports, MaxCooldown: limit})
			bound := max(limit, DefaultCooldown)
			sleep(time.Second)
			report := reportOf("a", stream.Failed)
			report.Since = report.Since.Add(-time.Second) // it was published late
			reports.tell(report)
			wantAvail(t, r, "server2")
			sleep(bound - time.Second - justBefore)
			wantAvail(t, r, "server2")
			sleep(justBefore)
			wantAvail(t, r, "server1 server2")
			if reports.bound != bound {
				t.Errorf("asked for reports within %v, want %v", reports.bound, bound)
			}
		})
	}
}

// A router does not heed its own reports as those of another client, even if the
// store keeps them for longer than the cooldown.
func TestOwnReportsAreNotHeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports := newTold()
		r := start(t, Config{Source: newListing(instances(2)...), Reports: reports, Reporter: "me", MaxCooldown: time.Minute})
		reports.tell(reportOf("me", stream.Failed))
		wantAvail(t, r, "server1 server2")
		if now := r.Tiers(); now.Source[0].HalfOpen() || len(now.ByOthers) > 0 || len(now.Spare) > 0 {
			t.Errorf("half-open %v, reported %v", now.Source[0].HalfOpen(), now.ByOthers)
		}
		reports.tell(reportOf("me", stream.Failed), reportOf("you", stream.Reset))
		wantAvail(t, r, "server1 server2") // by one other, not two
		if got := r.Tiers().ByOthers[1].Reporter; got != "you" {
			t.Errorf("reported by %q", got)
		}
	})
}
