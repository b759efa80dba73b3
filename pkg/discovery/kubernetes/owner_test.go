package kubernetes

import (
	"encoding/json"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery/kubernetes/kubetest"
)

// TestPodDeleted deletes a Pod whose server has crashed before. The records of the Pod
// go with it, by Kubernetes' own garbage collector, long before their lease ends.
func TestPodDeleted(t *testing.T) {
	t.Parallel()
	server := startServer(t, kubetest.Config{ControllerManager: true})
	pods := collections(space)["Pod"]
	const spec = `"spec":{"containers":[{"name":"c","image":"migrate"}]}}`
	var uids []string
	for _, name := range []string{"one", "two"} {
		body := `{"metadata":{"name":"` + name + `"},` + spec
		// A Pod needs the account that a controller makes.
		eventually(t, "a Pod can be made", func() bool {
			status, answer, err := server.Request(t.Context(), http.MethodPost, pods, "application/json", []byte(body))
			if err != nil || status != http.StatusCreated {
				t.Logf("status %d, %v: %s", status, err, answer)
				return false
			}
			var pod struct{ Metadata struct{ UID string } }
			if err := json.Unmarshal(answer, &pod); err != nil {
				t.Fatal(err)
			}
			uids = append(uids, pod.Metadata.UID)
			return true
		})
	}
	in := func(name, uid string) *Store {
		t.Helper()
		cfg := admin(server)
		cfg.PodName, cfg.PodUID, cfg.LeaseTTL = name, uid, time.Hour
		return openStore(t, cfg)
	}
	first, second := in("one", uids[0]), in("two", uids[1])
	put(t, first, one, "1", 0)
	put(t, first, prefix+"report", "1", time.Hour) // outlives whoever made it
	put(t, second, two, "2", 0)
	watch := observe(t, second)
	watch.always = []string{two, prefix + "report"}
	watch.untilFresh(one, two, prefix+"report")
	crash(first)
	server.Must(http.MethodDelete, pods+"/one?gracePeriodSeconds=0", "", "")
	watch.untilFresh(two, prefix+"report")
}

// TestSweep lets a store remove what dead owners have left, and nothing else.
func TestSweep(t *testing.T) {
	t.Parallel()
	server := startServer(t, kubetest.Config{})
	dead, alive := openStore(t, admin(server)), openStore(t, admin(server))
	put(t, dead, one, "1", 0)
	put(t, alive, two, "2", 0)
	put(t, dead, prefix+"3", "3", time.Second)
	long := put(t, dead, prefix+"3/4", "4", time.Hour)
	crash(dead)
	logs, logger := capture()
	cfg := admin(server)
	cfg.Logger = logger
	sweeper := openStore(t, cfg)
	// The owner's time has not passed: it is no suspect yet.
	if _, err := sweeper.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !exists(t, server, leasePath()) {
		t.Error("a record was removed before its lease had ended")
	}
	eventually(t, "the dead owner's record is removed", func() bool {
		kept, err := sweeper.sweep(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if kept < 1 || kept > 2 {
			t.Fatalf("the sweep has seen %d kept records", kept)
		}
		return !exists(t, server, leasePath())
	})
	eventually(t, "the record whose ttl has passed is removed", func() bool {
		if _, err := sweeper.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		return !exists(t, server, leasesPath+"/"+briefName(prefix+"3"))
	})
	observe(t, alive).untilFresh(two, prefix+"3/4")
	_ = long
	if w := logs.warnings(); len(w) != 0 {
		t.Errorf("warnings: %q", w)
	}
}

// TestSweepRace renews a record between a sweep's last look at it and the removal: it
// stays.
func TestSweepRace(t *testing.T) {
	t.Parallel()
	server := startServer(t, kubetest.Config{})
	proxy := kubetest.StartProxy(t, server)
	owner := openStore(t, admin(server))
	put(t, owner, one, "1", 0)
	crash(owner)
	sweeper := openStore(t, via(server, proxy.URL))
	tried := false
	proxy.Set(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodDelete {
			tried = true
			server.Must(http.MethodPatch, leasePath(), mergePatch, `{"spec":{"leaseTransitions":1}}`)
		}
		return false
	})
	eventually(t, "the sweep tries to remove the record", func() bool {
		if _, err := sweeper.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		return tried
	})
	if !exists(t, server, leasePath()) {
		t.Error("the sweep has removed a record that was renewed")
	}
}

// TestReplacedAndBack is about the log alone: the suite checks what stands.
func TestReplacedAndBack(t *testing.T) {
	t.Parallel()
	server := startServer(t, kubetest.Config{})
	var cfg = admin(server)
	var l *logs
	l, cfg.Logger = capture()
	first, second := openStore(t, cfg), openStore(t, admin(server))
	put(t, first, one, "1", 0)
	later := put(t, second, one, "2", 0)
	l.waitCause(t, lineReplaced, "key="+one, "holder="+second.identity)
	if err := later.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.wait(t, "registered again", 1)
	l.warnedOnce(t)
}

// TestReportsShareObjects puts the reports of a hundred clients about ten servers: 1,000
// records in 16 objects at the most, each to be found and released by itself.
func TestReportsShareObjects(t *testing.T) {
	t.Parallel()
	server := startServer(t, kubetest.Config{})
	s := openStore(t, admin(server))
	const down = "v1/down/dynamo/backend/generate/"
	lease := put(t, s, down+"1/first", "x", time.Hour)
	for server := range 10 {
		for client := range 100 {
			put(t, s, down+strconv.Itoa(server)+"/"+strconv.Itoa(client), `{"reporter":"client"}`, time.Hour)
		}
	}
	l, err := s.listAll(t.Context(), selector(down), false)
	if err != nil || len(l.objects) > briefShards {
		t.Errorf("%d objects, %v", len(l.objects), err)
	}
	if err := lease.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	for snap, err := range s.Watch(t.Context(), down) {
		if err != nil || len(snap.Records) != 1000 {
			t.Errorf("%d records, %v", len(snap.Records), err)
		}
		break
	}
}
