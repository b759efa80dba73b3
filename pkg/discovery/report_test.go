package discovery_test

import (
	"bytes"
	"context"
	"iter"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

func report(id discovery.InstanceID, reporter string, cooldown time.Duration) discovery.Report {
	now := time.Now()
	return discovery.Report{
		Endpoint: endpoint(), Instance: id, Incarnation: "1", Reporter: reporter,
		Kind: "failed", Reason: "Stream ended before generation completed", Since: now, Until: now.Add(cooldown),
	}
}

func publish(t *testing.T, r *discovery.Registry, reports ...discovery.Report) {
	t.Helper()
	for _, report := range reports {
		if err := r.Report(t.Context(), report); err != nil {
			t.Fatal(err)
		}
	}
}

// equal compares reports by the wall clock alone.
func equal(a, b discovery.Report) bool {
	if !a.Since.Equal(b.Since) || !a.Until.Equal(b.Until) {
		return false
	}
	a.Since, a.Until, b.Since, b.Until = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	return a == b
}

// TestReportsEndWithTheirLease follows reports with a reader that was there from the
// beginning and with one that came later.
func TestReportsEndWithTheirLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(discovery.Mem)
		writer, reader := discovery.NewRegistry(m, nil), discovery.NewRegistry(m, nil)
		ctx, cancel := context.WithCancel(t.Context())
		next, stop := iter.Pull2(reader.WatchReportTimes(ctx, endpoint(), time.Minute))
		defer stop()
		expect := func(want ...discovery.Report) {
			t.Helper()
			set, err, ok := next()
			if err != nil || !ok || len(set.List) != len(want) {
				t.Fatalf("got %+v, %v, %v, want %+v", set.List, err, ok, want)
			}
			for i := range want {
				if !equal(set.List[i], want[i]) {
					t.Errorf("report %d is %+v, want %+v", i, set.List[i], want[i])
				}
			}
		}
		expect()
		began := time.Now()
		five, seven := report(2, "a", 5*time.Second), report(1, "b", 7*time.Second)
		publish(t, writer, five)
		expect(five)
		publish(t, writer, seven)
		expect(seven, five)

		time.Sleep(3 * time.Second)
		late, err := discovery.NewRegistry(m, nil).ListReports(t.Context(), endpoint(), time.Minute)
		if err != nil || len(late.List) != 2 || !equal(late.List[1], five) {
			t.Errorf("who comes later reads %+v, %v, want the times of %+v", late.List, err, five)
		}
		again := report(2, "a", 10*time.Second)
		publish(t, writer, again)
		expect(seven, again)
		expect(again)
		if at := time.Since(began); at != 7*time.Second {
			t.Errorf("a report for 7s ended after %v", at)
		}
		expect()
		if at := time.Since(began); at != 13*time.Second {
			t.Errorf("a report renewed after 3s for 10s ended after %v", at)
		}
		cancel()
	})
}

// TestReportIsNotByTheWritersClock reads a report from a machine whose clock is a year
// ahead.
func TestReportIsNotByTheWritersClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(discovery.Mem)
		odd := report(1, "a", 5*time.Second)
		publish(t, discovery.NewRegistry(m, nil), odd)
		for snap, err := range m.Watch(t.Context(), "v1/down/") {
			if err != nil {
				t.Fatal(err)
			}
			year := strconv.Itoa(odd.Since.Year())
			ahead := strings.ReplaceAll(string(snap.Records[0].Value), year+"-", strconv.Itoa(odd.Since.Year()+1)+"-")
			if ahead == string(snap.Records[0].Value) {
				t.Fatalf("no year %s in %s", year, ahead)
			}
			if _, err := m.Put(t.Context(), snap.Records[0].Key, []byte(ahead), 5*time.Second); err != nil {
				t.Fatal(err)
			}
			break
		}
		time.Sleep(2 * time.Second)
		set, err := discovery.NewRegistry(m, nil).ListReports(t.Context(), endpoint(), time.Minute)
		if err != nil || len(set.List) != 1 {
			t.Fatalf("got %+v, %v", set, err)
		}
		if left := time.Until(set.List[0].Until); left != 3*time.Second {
			t.Errorf("ends in %v, want 3s", left)
		}
		if ago := time.Since(set.List[0].Since); ago != 2*time.Second {
			t.Errorf("began %v ago, want 2s", ago)
		}
	})
}

// TestLateReportEndsOnTime publishes a report two seconds after it was made.
func TestLateReportEndsOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(discovery.Mem)
		r := discovery.NewRegistry(m, nil)
		late, over := report(1, "a", 5*time.Second), report(2, "a", time.Second)
		time.Sleep(2 * time.Second)
		publish(t, r, late)
		if err := r.Report(t.Context(), over); err == nil {
			t.Error("a report that has ended is published")
		}
		set, err := r.ListReports(t.Context(), endpoint(), time.Minute)
		if err != nil || len(set.List) != 1 || !equal(set.List[0], late) {
			t.Errorf("got %+v, %v, want %+v", set.List, err, late)
		}
		time.Sleep(3 * time.Second)
		if set, err := r.ListReports(t.Context(), endpoint(), time.Minute); err != nil || len(set.List) != 0 {
			t.Errorf("5s after it was made a report for 5s stands: %+v, %v", set.List, err)
		}
	})
}

// asked is a store that is slow to return an expiry, and counts the calls.
type asked struct {
	*discovery.Mem
	n atomic.Int64
}

func (a *asked) Expiry(ctx context.Context, key string) (time.Duration, error) {
	a.n.Add(1)
	time.Sleep(10 * time.Millisecond)
	return a.Mem.Expiry(ctx, key)
}

// TestReportsAreHeededForTheReadersBound checks that a report for a day does not take
// an instance out for a day elsewhere.
func TestReportsAreHeededForTheReadersBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &asked{Mem: new(discovery.Mem)}
		writer, reader := discovery.NewRegistry(store, nil), discovery.NewRegistry(store, nil)
		long, short := report(1, "a", 24*time.Hour), report(2, "a", 4*time.Second)
		publish(t, writer, long, short)
		time.Sleep(3 * time.Second)
		for set, err := range reader.WatchReports(t.Context(), endpoint(), 5*time.Second) {
			if err != nil || len(set.List) != 2 {
				t.Fatalf("got %+v, %v", set.List, err)
			}
			if until, want := set.List[0].Until, long.Since.Add(5*time.Second); until.Sub(want).Abs() > time.Second {
				t.Errorf("a report for a day is heeded until %v after it was made, want 5s", until.Sub(long.Since))
			}
			if until := set.List[1].Until; until.Before(short.Until) {
				t.Errorf("a report is heeded until %v before its end", short.Until.Sub(until))
			}
			break
		}
		if n := store.n.Load(); n != 1 {
			t.Errorf("the store was asked for %d ages, want that of the long report alone", n)
		}
		time.Sleep(3 * time.Second)
		for set, err := range reader.WatchReports(t.Context(), endpoint(), 5*time.Second) {
			if err != nil || len(set.List) != 0 {
				t.Errorf("beyond the reader's bound it gets %+v, %v", set.List, err)
			}
			break
		}
	})
}

// TestAgesAreAskedTogether lists a thousand reports, whose ages take 10 ms each.
func TestAgesAreAskedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &asked{Mem: new(discovery.Mem)}
		r := discovery.NewRegistry(store, nil)
		for i := range 1000 {
			publish(t, r, report(discovery.InstanceID(i+1), "a", time.Minute))
		}
		began := time.Now()
		set, err := r.ListReports(t.Context(), endpoint(), time.Hour)
		if err != nil || len(set.List) != 1000 {
			t.Fatalf("%d reports, %v", len(set.List), err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestStanding(t *testing.T) {
	now := time.Now()
	i := instance(1)
	i.Incarnation = "a"
	by := func(reporter, kind string) discovery.Report {
		return discovery.Report{Instance: 1, Incarnation: "a", Reporter: reporter, Kind: kind, Until: now.Add(1)}
	}
	other, before, ended := by("c", "failed"), by("c", "failed"), by("c", "failed")
	other.Instance, before.Incarnation, ended.Until = 2, "", now
	for _, tt := range []struct {
		name    string
		reports []discovery.Report
		out     bool
	}{
		{"none", nil, false},
		{"the server's word", []discovery.Report{by("a", "failed")}, true},
		{"not the one that was meant", []discovery.Report{by("a", "misdirected")}, true},
		{"one client's network", []discovery.Report{by("a", "unreachable")}, false},
		{"a kind of a newer client", []discovery.Report{by("a", "melted")}, false},
		{"two clients", []discovery.Report{by("a", "reset"), by("b", "stalled")}, true},
	} {
		reports := append([]discovery.Report{other, before, ended}, tt.reports...)
		if standing, out := discovery.Standing(i, reports, now); !slices.Equal(standing, tt.reports) || out != tt.out {
			t.Errorf("%s: out is %v by %+v", tt.name, out, standing)
		}
	}
}

func TestReportRefused(t *testing.T) {
	r := discovery.NewRegistry(new(discovery.Mem), nil)
	for name, bad := range map[string]discovery.Report{
		"no time":       report(1, "a", 0),
		"a slash":       report(1, "a/b", time.Second),
		"no reporter":   report(1, "", time.Second),
		"dots":          report(1, "..", time.Second),
		"negative time": report(1, "a", -time.Second),
	} {
		if err := r.Report(t.Context(), bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestReportReasonIsBounded(t *testing.T) {
	r := discovery.NewRegistry(new(discovery.Mem), nil)
	long := report(1, "a", time.Second)
	long.Reason = strings.Repeat("é", discovery.MaxValue)
	publish(t, r, long)
	set, err := r.ListReports(t.Context(), endpoint(), time.Minute)
	if err != nil || len(set.List) != 1 {
		t.Fatalf("got %+v, %v", set, err)
	}
	if got := set.List[0].Reason; len(got) > 1024 || strings.Trim(got, "é") != "" {
		t.Errorf("the reason has %d bytes: %.20q", len(got), got)
	}
}

func TestBadReportsAreSkipped(t *testing.T) {
	m := new(discovery.Mem)
	good := `{"type":"Down","namespace":"dynamo","component":"backend","endpoint":"generate","instance_id":1,"reporter":"a","kind":"reset","cooldown_ms":5000}`
	const prefix = "v1/down/dynamo/backend/generate/"
	for key, value := range map[string]string{
		"1/a": good,
		"1/b": good, // belongs under 1/a
		"2/a": "{",
		"3/a": strings.Replace(good, "Down", "Up", 1),
		"4/a": strings.Replace(good, "5000", "-1", 1),
		"5/a": strings.Replace(good, "5000", "9223372036854775807", 1),
		"6/a": strings.Replace(good, `"instance_id":1,`, "", 1),
	} {
		if _, err := m.Put(t.Context(), prefix+key, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	r := discovery.NewRegistry(m, slog.New(slog.NewTextHandler(&log, nil)))
	for range 2 {
		set, err := r.ListReports(t.Context(), endpoint(), time.Minute)
		if err != nil || len(set.List) != 1 || set.List[0].Instance != 1 || set.List[0].Kind != "reset" {
			t.Errorf("got %+v, %v", set, err)
		}
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 6 {
		t.Errorf("%d warnings, want 6:\n%s", n, &log)
	}
}
