package router

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// justBefore is how close to a deadline these tests look.
const justBefore = time.Nanosecond

func wantAvail(t *testing.T, r *Router, want string) {
	t.Helper()
	synctest.Wait()
	if got := names(r.Tiers().Avail); got != want {
		t.Errorf("available: %q, want %q", got, want)
	}
}

// sleep lets fake time pass and all goroutines act on it.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestDownForItsCooldown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListing(instances(3)...)
		r := start(t, Config{Source: l})
		wantAvail(t, r, "server1 server2 server3")
		sleep(1234 * time.Millisecond) // so that no round of the loop falls on a deadline
		if !r.ReportDown(2, stream.Failed) {
			t.Fatal("ReportDown says that the instance is not there or down already")
		}
		wantAvail(t, r, "server1 server3")
		sleep(5*time.Second - justBefore)
		wantAvail(t, r, "server1 server3")
		sleep(justBefore)
		wantAvail(t, r, "server1 server2 server3")
	})
}

// An instance stays down until its own deadline, whatever the others do.
func TestOthersChangeNothing(t *testing.T) {
	for name, change := range map[string]func(*Router, *listing){
		"joins":        func(_ *Router, l *listing) { l.list(instances(4)...) },
		"leaves":       func(_ *Router, l *listing) { l.list(instances(2)...) },
		"leaves last":  func(_ *Router, l *listing) { l.list(instance(1)) },
		"restarts":     func(_ *Router, l *listing) { l.list(instance(1), instance(2), restarted(3)) },
		"comes back":   func(_ *Router, l *listing) { l.list(instances(2)...); sleep(1); l.list(instances(3)...) },
		"is down":      func(r *Router, _ *listing) { r.ReportDown(3, stream.Failed) },
		"goes stale":   func(_ *Router, l *listing) { l.change(&discovery.Instances{List: instances(3), Stale: errBoom}, nil) },
		"source fails": func(_ *Router, l *listing) { l.change(nil, errBoom); sleep(1); l.list(instances(3)...) },
		"itself flaps": func(_ *Router, l *listing) { l.list(); sleep(1); l.list(instances(3)...) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newListing(instances(3)...)
				r := start(t, Config{Source: l})
				sleep(time.Millisecond)
				r.ReportDown(1, stream.Failed)
				begin := time.Now()
				sleep(time.Second)
				change(r, l)
				isUp := func() bool { return strings.Contains(names(r.Tiers().Avail), "server1") }
				sleep(5*time.Second - justBefore - time.Since(begin))
				if isUp() {
					t.Error("back too soon")
				}
				sleep(justBefore)
				if !isUp() {
					t.Error("not back at its deadline")
				}
			})
		})
	}
}

// restarted is an instance started anew under the same id.
func restarted(n int) discovery.Instance {
	i := instance(n)
	i.Incarnation = "another"
	return i
}

// moved is the first instance, whose record has changed.
func moved() discovery.Instance {
	i := instance(1)
	i.Address += "-elsewhere"
	i.Name += "b"
	i.MaxRequest = 1
	return i
}

func TestEachItsOwnDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListing(instances(3)...)
		r := start(t, Config{Source: l})
		sleep(300 * time.Millisecond)
		for id := range discovery.InstanceID(3) {
			r.ReportDown(id+1, stream.Failed)
			sleep(time.Second)
		}
		wantAvail(t, r, "")
		sleep(2*time.Second - justBefore) // 5 s after the first
		wantAvail(t, r, "")
		for _, want := range []string{"server1", "server1 server2", "server1 server2 server3"} {
			sleep(justBefore)
			wantAvail(t, r, want)
			sleep(time.Second - justBefore)
			wantAvail(t, r, want)
		}
	})
}

func TestSecondReportChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListing(instances(1)...)
		r := start(t, Config{Source: l, MaxCooldown: time.Minute})
		sleep(time.Millisecond)
		r.ReportDown(1, stream.Failed)
		before := r.Tiers()
		sleep(3 * time.Second)
		if r.ReportDown(1, stream.Stalled) {
			t.Error("a second report counts as new")
		}
		if r.Tiers() != before {
			t.Error("a second report changed the tiers")
		}
		sleep(2 * time.Second)
		wantAvail(t, r, "server1")
		if r.ReportDown(7, stream.Failed) {
			t.Error("an instance that is not listed can be reported down")
		}
	})
}

func TestCooldownDoubles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListing(instances(2)...)
		client := &servers{by: map[string]server{"server1": whole}}
		r := start(t, Config{Source: l, Client: client, MaxCooldown: 30 * time.Second})
		cooldown := func() time.Duration {
			t.Helper()
			synctest.Wait()
			if !r.ReportDown(1, stream.Failed) {
				t.Fatal("still down")
			}
			d := r.Tiers().Down[1]
			until := d.Until.Sub(d.Since)
			sleep(until)
			return until
		}
		for i, want := range []float64{5, 10, 20, 30, 30} {
			if got := cooldown().Seconds(); got != want {
				t.Errorf("failure %d in a row: down for %v s, want %v", i+1, got, want)
			}
		}
		// Coming back in the middle of a cooldown is no new life.
		r.ReportDown(1, stream.Failed)
		l.list(instance(2))
		sleep(time.Second)
		l.list(instances(2)...)
		sleep(29 * time.Second)
		if got := cooldown(); got != 30*time.Second {
			t.Errorf("after it left and came back: down for %v", got)
		}
		if _, err := ask(t.Context(), r, hello()); err != nil {
			t.Fatal(err)
		}
		if got := cooldown(); got != 5*time.Second {
			t.Errorf("after a completed stream: down for %v, want 5s", got)
		}
	})
}

func TestCooldownStaysFlat(t *testing.T) {
	for _, limit := range []time.Duration{0, time.Second, 5 * time.Second} {
		tiers := tiers{cooldown: 5 * time.Second, maxCooldown: limit}
		if got := tiers.cooldownAfter(9); got != 5*time.Second {
			t.Errorf("limit %v: the 9th failure in a row counts %v", limit, got)
		}
	}
}

// An instance started anew is not the one that failed.
func TestRestartDropsReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListing(instances(2)...)
		r := start(t, Config{Source: l})
		synctest.Wait()
		old := r.Tiers().Source[0]
		r.ReportDown(1, stream.Failed)
		wantAvail(t, r, "server2")
		l.list(restarted(1), instance(2))
		wantAvail(t, r, "server1 server2")
		// A stream of the old one that breaks only now says nothing of the new.
		if _, isNew := r.reportDown(old, stream.Stalled, true); isNew {
			t.Error("a report of the old one puts the new one down")
		}
		wantAvail(t, r, "server1 server2")
		l.list(instance(2))
		sleep(time.Second)
		l.list(restarted(1), instance(2))
		wantAvail(t, r, "server1 server2")
	})
}

func TestOtherTransportsAreNotRoutedTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tcp, bare := instance(1), instance(2)
		tcp.Transport, bare.Address = "tcp", ""
		r := start(t, Config{Source: newListing(tcp, bare, instance(3))})
		wantAvail(t, r, "server3")
	})
}

func TestStaleSourceStaysInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListing(instances(2)...)
		r := start(t, Config{Source: l})
		synctest.Wait()
		l.change(&discovery.Instances{List: instances(2), Stale: errBoom}, nil)
		wantAvail(t, r, "server1 server2")
		if !errors.Is(r.Tiers().Stale, errBoom) {
			t.Errorf("stale: %v", r.Tiers().Stale)
		}
		l.list(instances(3)...)
		wantAvail(t, r, "server1 server2 server3")
		if r.Tiers().Stale != nil {
			t.Errorf("still stale: %v", r.Tiers().Stale)
		}
		l.change(nil, errBoom) // the watch ends
		wantAvail(t, r, "server1 server2 server3")
		if !errors.Is(r.Tiers().Stale, errBoom) {
			t.Errorf("stale: %v", r.Tiers().Stale)
		}
		l.list(instance(3))
		sleep(sourceRetry)
		wantAvail(t, r, "server3")
	})
}

// Tiers that a reader holds never change.
func TestTiersAreSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListing(instances(2)...)
		r := start(t, Config{Source: l})
		synctest.Wait()
		before := r.Tiers()
		r.ReportDown(1, stream.Failed)
		during := r.Tiers()
		l.list(restarted(1), instance(3))
		synctest.Wait()
		if got := names(before.Source) + ", " + names(before.Avail); got != "server1 server2, server1 server2" || len(before.Down) != 0 {
			t.Errorf("before: %s, %v", got, before.Down)
		}
		d := during.Down[1]
		if got := names(during.Source) + ", " + names(during.Avail); got != "server1 server2, server2" || len(during.Down) != 1 {
			t.Errorf("during: %s, %v", got, during.Down)
		}
		if d.Instance != instance(1) || !errors.Is(d.Cause, stream.Failed) || !d.Since.Equal(time.Now()) || d.Until.Sub(d.Since) != 5*time.Second {
			t.Errorf("report: %+v", d)
		}
	})
}

// Thousands of instances that fail one by one are marked, and the lists are made anew
// only now and then. No request goes to one that is down meanwhile, and Tiers returns
// current lists at once.
func TestFailOneByOne(t *testing.T) {
	const n, most = 5000, 100 << 20 // bytes; a list for each would be gigabytes
	synctest.Test(t, func(t *testing.T) {
		client := &servers{}
		r := start(t, Config{Source: newListing(instances(n)...), Client: client, Picker: Random(), Attempts: n + 1, MaxCooldown: time.Hour})
		synctest.Wait()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := ask(t.Context(), r, hello()); !errors.Is(err, ErrNoInstances) {
			t.Errorf("ended with %.300v", err)
		}
		runtime.ReadMemStats(&after)
		if allocated := after.TotalAlloc - before.TotalAlloc; allocated > most {
			t.Errorf("that allocated %d bytes, want at most %d", allocated, most)
		}
		if now := r.Tiers(); len(client.calls) != n || len(now.Down) != n || len(now.Avail) != 0 {
			t.Errorf("%d calls, %d down, %d available", len(client.calls), len(now.Down), len(now.Avail))
		}
		sleep(DefaultCooldown)
		if now := r.Tiers(); len(now.Down) != 0 || len(now.Avail) != n {
			t.Errorf("later %d are down, %d available", len(now.Down), len(now.Avail))
		}
		r.ReportDown(7, stream.Failed)
		r.ReportDown(8, stream.Failed)
		if now := r.Tiers(); len(now.Down) != 2 || len(now.Avail) != n-2 {
			t.Errorf("two more: %d are down, %d available", len(now.Down), len(now.Avail))
		}
	})
}
