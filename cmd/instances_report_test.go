//go:build unix

package cmd_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/etcd"
	"github.com/request-migration/migrate/pkg/discovery/etcd/etcdtest"
	"github.com/request-migration/migrate/pkg/discovery/file"
)

// reporter reports servers of a world down, as a client that runs beside them does.
type reporter struct {
	registry *discovery.Registry
	endpoint discovery.Endpoint
}

// newReporter returns one that writes to store, which is closed with the test.
func newReporter(t *testing.T, store discovery.Store, err error) *reporter {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return &reporter{
		registry: discovery.NewRegistry(store, nil),
		endpoint: discovery.Endpoint{Namespace: "dynamo", Component: "backend", Name: "generate"},
	}
}

// fileReporter returns a reporter for the file store of w.
func (w *world) fileReporter(t *testing.T) *reporter {
	t.Helper()
	store, err := file.Open(file.Config{Dir: w.kv})
	return newReporter(t, store, err)
}

// useEtcd makes the commands of w use an etcd of its own.
func (w *world) useEtcd(t *testing.T) (*etcdtest.Server, *reporter) {
	t.Helper()
	server := etcdtest.Start(t, etcdtest.Config{})
	w.env = append(w.env, "DYN_STORE_KV=etcd", "ETCD_ENDPOINTS="+server.Endpoint())
	store, err := etcd.Open(t.Context(), etcd.Config{Endpoints: []string{server.Endpoint()}})
	return server, newReporter(t, store, err)
}

// report reports the server with that name down for the cooldown.
func (r *reporter) report(t *testing.T, name, by string, cooldown time.Duration) discovery.Report {
	t.Helper()
	list, err := r.registry.List(t.Context(), r.endpoint)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list.List, func(i discovery.Instance) bool { return i.Name == name })
	if i < 0 {
		t.Fatalf("%s is not listed, only %+v", name, list.List)
	}
	now := time.Now()
	report := discovery.Report{
		Endpoint: r.endpoint, Instance: list.List[i].ID, Incarnation: list.List[i].Incarnation,
		Reporter: by, Kind: "failed", Reason: "Stream ended before generation completed", Since: now, Until: now.Add(cooldown),
	}
	if err := r.registry.Report(t.Context(), report); err != nil {
		t.Fatal(err)
	}
	return report
}

// downView is the output of `migrate instances --output json`, with reports and probes.
type downView struct {
	Source    []string `json:"instance_source"`
	Avail     []string `json:"instance_avail"`
	Instances []downInstance
}

type downInstance struct {
	ID, Name      string
	Source, Avail bool
	Down          *struct {
		Kind, Reason, Reporter string
		Since, Until           time.Time
		Others                 []struct{ Reporter string }
	}
	Probe *struct {
		MS           float64
		Kind, Reason string
	}
}

func (w *world) view(t *testing.T, flags ...string) downView {
	t.Helper()
	stdout, _ := w.run(t, 0, nil, append([]string{"migrate", "instances", "--output", "json", "--cooldown", "1m"}, flags...)...)
	var v downView
	if err := json.Unmarshal([]byte(stdout), &v); err != nil {
		t.Fatalf("%v in\n%s", err, stdout)
	}
	return v
}

// named returns the instance with that name.
func (v downView) named(t *testing.T, name string) downInstance {
	t.Helper()
	for _, i := range v.Instances {
		if i.Name == name {
			return i
		}
	}
	t.Fatalf("%s is not shown, only %+v", name, v.Instances)
	return downInstance{}
}

// TestInstancesShowsReports reports a server, and looks until it is back.
func TestInstancesShowsReports(t *testing.T) {
	t.Parallel()
	for _, store := range []string{"file", "etcd"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var r *reporter
			if store == "etcd" {
				_, r = w.useEtcd(t)
			} else {
				r = w.fileReporter(t)
			}
			w.serve(t, "server1")
			w.serve(t, "server2")
			// Generous, for busy machines.
			const cooldown = 10 * time.Second
			r.report(t, "server1", "early", cooldown/2)
			reported := r.report(t, "server1", "late", cooldown)

			v := w.view(t)
			one, two := v.named(t, "server1"), v.named(t, "server2")
			if !slices.Contains(v.Source, one.ID) || slices.Contains(v.Avail, one.ID) || !one.Source || one.Avail {
				t.Errorf("the reported server is in source %v, in avail %v", one.Source, one.Avail)
			}
			if !slices.Contains(v.Avail, two.ID) || !two.Avail || two.Down != nil {
				t.Errorf("the other server is %+v", two)
			}
			if d := one.Down; d == nil {
				t.Error("nothing is said of the reported server")
			} else {
				if d.Kind != reported.Kind || d.Reason != reported.Reason || d.Reporter != "late" || len(d.Others) != 1 || d.Others[0].Reporter != "early" {
					t.Errorf("the report is shown as %+v", d)
				}
				// Stores count in steps, of a second at most.
				if got := d.Until.Sub(d.Since); got < cooldown-time.Millisecond || got > cooldown+time.Millisecond {
					t.Errorf("it is down for %v, want %v", got, cooldown)
				}
				if off := d.Until.Sub(reported.Until).Abs(); off > 2*time.Second {
					t.Errorf("it is back at %v, the report said %v", d.Until, reported.Until)
				}
			}
			for deadline := time.Now().Add(patience); !w.view(t).named(t, "server1").Avail; time.Sleep(pollInterval) {
				if time.Now().After(deadline) {
					t.Fatal("the server is not back")
				}
			}
			// The store's clock decides, and etcd's counts in seconds.
			if early := time.Until(reported.Until); early > time.Second {
				t.Errorf("the server is back %v too soon", early)
			}
		})
	}
}
