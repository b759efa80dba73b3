//go:build unix

package cmd_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// leaseTime is how long after its last renewal a record of the file store expires. A
// server renews it every 3 s, so that no dead one is listed for more than 13 s.
const leaseTime = 10 * time.Second

// TestDeadInstanceIsListedNoLonger kills a server, and compares the list with the age of
// the server's file, which does not depend on the speed of the machine.
func TestDeadInstanceIsListedNoLonger(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dead := w.serve(t, "dead")
	w.serve(t, "alive")
	records := filepath.Join(w.kv, "v1", "instances")
	file := filepath.Join(records, w.recordOf(t, "dead"))
	dead.kill()

	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	died := info.ModTime().Add(leaseTime)
	listed := false
	for {
		began := time.Now()
		list, err := listInstances(w.dir, w.env)
		if err != nil {
			t.Fatal(err)
		}
		names := []string{}
		for _, i := range list.Instances {
			names = append(names, i.Name)
		}
		if !slices.Contains(names, "alive") {
			t.Fatalf("the server that lives is not listed, only %v", names)
		}
		if slices.Contains(names, "dead") {
			// File systems' clocks tick in steps, of 10 ms at most.
			if began.After(died.Add(100 * time.Millisecond)) {
				t.Fatal("the dead server is still listed")
			}
			listed = true
			time.Sleep(pollInterval)
			continue
		}
		if now := time.Now(); now.Before(died) {
			t.Fatalf("the dead server is listed no longer, %v too soon", died.Sub(now))
		}
		break
	}
	if !listed {
		t.Log("this machine is so busy that the dead server was never seen listed")
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the file of the dead server is still there: %v", err)
	}
}
