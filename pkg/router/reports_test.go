package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// sharingPair returns two routers over one store; server1 always breaks.
func sharingPair(t *testing.T, source *listing, reports Reports) (first, second *Router, client *servers) {
	t.Helper()
	client = &servers{by: map[string]server{"server1": breaking(stream.Failed, 2), "server2": whole, "server3": whole}}
	first = start(t, Config{Source: source, Client: client, Reports: reports, Reporter: "first"})
	second = start(t, Config{Source: source, Client: client, Reports: reports, Reporter: "second"})
	return first, second, client
}

func TestReportOfAnotherIsHeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports := discovery.NewRegistry(new(discovery.Mem), nil)
		first, second, client := sharingPair(t, newListing(instances(3)...), reports)
		if got, err := ask(t.Context(), first, hello()); got != "he|llo" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		synctest.Wait()
		expect := func(avail, spare string) {
			t.Helper()
			synctest.Wait()
			now := second.Tiers()
			if names(now.Avail) != avail || names(now.Spare) != spare {
				t.Errorf("avail %q, spare %q, want %q, %q", names(now.Avail), names(now.Spare), avail, spare)
			}
		}
		expect("server2 server3", "server1")
		if got, err := ask(t.Context(), second, hello()); got != "hello" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		time.Sleep(5*time.Second - 1)
		expect("server2 server3", "server1")
		time.Sleep(time.Nanosecond)
		expect("server1 server2 server3", "")
		if got := client.asked(); got != "server1 server2 server2" {
			t.Errorf("asked %s", got)
		}
		if len(first.Tiers().ByOthers) > 0 {
			t.Error("a router heeds its own report")
		}
	})
}

// A router that starts later heeds the reports that stand from its first request on.
func TestReportIsReadBeforeTheFirstRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports := discovery.NewRegistry(new(discovery.Mem), nil)
		source := newListing(instances(2)...)
		first, _, client := sharingPair(t, source, reports)
		if _, err := ask(t.Context(), first, hello()); err != nil {
			t.Fatal(err)
		}
		first.Close() // at once, as a command does; the report must be out
		late := start(t, Config{Source: source, Client: client, Reports: reports})
		if got, err := ask(t.Context(), late, hello()); got != "hello" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if got := client.asked(); got != "server1 server2 server2" {
			t.Errorf("asked %s", got)
		}
	})
}

// The reports of others never leave a request without an instance.
func TestReportedInstancesAreBetterThanNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports := discovery.NewRegistry(new(discovery.Mem), nil)
		now := time.Now()
		for id := range 2 {
			err := reports.Report(t.Context(), discovery.Report{
				Endpoint: testEndpoint, Instance: discovery.InstanceID(id + 1), Reporter: "other",
				Kind: "failed", Since: now, Until: now.Add(5 * time.Second),
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		source := newListing(instances(2)...)
		_, second, client := sharingPair(t, source, reports)
		if got, err := ask(t.Context(), second, hello()); got != "he|llo" || err != nil {
			t.Errorf("all reported by others: got %q, %v", got, err)
		}
		// server1 is down by this router's own report now, which stands.
		source.list(instance(1))
		synctest.Wait()
		if _, err := ask(t.Context(), second, hello()); !errors.Is(err, ErrNoInstances) {
			t.Errorf("only one that is down by its own report: %v", err)
		}
		if got := client.asked(); got != "server1 server2" {
			t.Errorf("asked %s", got)
		}
	})
}

// An instance that the caller names is asked, whatever others report.
func TestReportOfAnotherDoesNotOverruleTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports := discovery.NewRegistry(new(discovery.Mem), nil)
		first, second, client := sharingPair(t, newListing(instances(2)...), reports)
		for _, r := range []*Router{first, second} {
			req := hello()
			req.Instance = "server1"
			if _, err := ask(t.Context(), r, req); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if got := client.asked(); got != "server1 server2 server1 server2" {
			t.Errorf("asked %s", got)
		}
	})
}

func TestReportDoesNotOutliveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports := discovery.NewRegistry(new(discovery.Mem), nil)
		source := newListing(instances(2)...)
		first, second, _ := sharingPair(t, source, reports)
		if _, err := ask(t.Context(), first, hello()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		restarted := instance(1)
		restarted.Incarnation = "another"
		source.list(restarted, instance(2))
		synctest.Wait()
		for name, r := range map[string]*Router{"the reporter": first, "another": second} {
			if got := names(r.Tiers().Avail); got != "server1 server2" {
				t.Errorf("%s: avail %q", name, got)
			}
		}
	})
}

// counting counts the reports that reach a store.
type counting struct {
	Reports
	n atomic.Int64
}

func (c *counting) Report(ctx context.Context, r discovery.Report) error {
	c.n.Add(1)
	return c.Reports.Report(ctx, r)
}

func TestManyFailuresAreFewReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports := &counting{Reports: discovery.NewRegistry(new(discovery.Mem), nil)}
		first, _, client := sharingPair(t, newListing(instances(1)...), reports)
		client.by["server1"] = after(100*time.Millisecond, breaking(stream.Reset, 1))
		var failed sync.WaitGroup
		for range 1000 {
			failed.Go(func() {
				if _, err := ask(t.Context(), first, hello()); err == nil {
					t.Error("a request succeeded")
				}
			})
		}
		failed.Wait()
		synctest.Wait()
		if n := reports.n.Load(); n != 1 {
			t.Errorf("1000 failures of one instance are %d reports, want 1", n)
		}
	})
}

// broken is a store that takes no reports and yields none.
type broken struct{ hangs bool }

func (b broken) Report(ctx context.Context, _ discovery.Report) error {
	if b.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return errBoom
}

func (b broken) WatchReports(ctx context.Context, _ discovery.Endpoint, _ time.Duration) iter.Seq2[discovery.Reports, error] {
	return func(yield func(discovery.Reports, error) bool) {
		if b.hangs {
			<-ctx.Done()
		}
		yield(discovery.Reports{}, errBoom)
	}
}

func TestStoreThatRefusesReports(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		t.Run(fmt.Sprintf("hangs %v", hangs), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				client := &servers{by: map[string]server{"server1": breaking(stream.Failed, 2), "server2": whole}}
				r := start(t, Config{
					Source: newListing(instances(2)...), Client: client, Reports: broken{hangs},
					Logger: slog.New(slog.NewTextHandler(&log, nil)),
				})
				began := time.Now()
				if got, err := ask(t.Context(), r, hello()); got != "he|llo" || err != nil {
					t.Errorf("got %q, %v", got, err)
				}
				want := time.Duration(0)
				if hangs {
					want = heedTimeout // the router's first, and no later one
				}
				if took := time.Since(began); took != want {
					t.Errorf("the request waited %v for the store, want %v", took, want)
				}
				r.Close()
				if took := time.Since(began); took > want+reportTimeout {
					t.Errorf("Close took %v", took)
				}
				if n := strings.Count(log.String(), "level=WARN"); n != 1 {
					t.Errorf("%d warnings, want 1:\n%s", n, &log)
				}
			})
		})
	}
}

// leaving is a store that yields one report, then goes away.
type leaving struct{ broken }

func (leaving) WatchReports(ctx context.Context, _ discovery.Endpoint, _ time.Duration) iter.Seq2[discovery.Reports, error] {
	return func(yield func(discovery.Reports, error) bool) {
		now := time.Now()
		set := discovery.Reports{List: []discovery.Report{
			{Instance: 1, Reporter: "a", Kind: "failed", Since: now, Until: now.Add(3 * time.Second)},
			{Instance: 1, Reporter: "b", Kind: "failed", Since: now, Until: now.Add(5 * time.Second)},
			{Instance: 2, Reporter: "c", Kind: "failed", Since: now.Add(-time.Minute), Until: now},
		}}
		if !yield(set, nil) {
			return
		}
		set.Stale = errBoom
		if yield(set, nil) {
			<-ctx.Done()
		}
	}
}

// A report ends even while the store can't be read.
func TestReportEndsWhileTheStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Config{Source: newListing(instances(2)...), Reports: leaving{}})
		for _, step := range []struct {
			sleep time.Duration
			want  string
		}{{0, "server2"}, {5*time.Second - 1, "server2"}, {1, "server1 server2"}} {
			time.Sleep(step.sleep)
			synctest.Wait()
			if got := names(r.Tiers().Avail); got != step.want {
				t.Errorf("avail %q, want %q", got, step.want)
			}
		}
	})
}
