//go:build unix

package cmd_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestProbeProcesses asks a sound server, a frozen one, a dead one, and one
// that is spoken to in another way.
func TestProbeProcesses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve(t, "sound")
	frozen := w.serve(t, "frozen")
	dead := w.serve(t, "dead")
	const foreign = `{"type":"Endpoint","namespace":"dynamo","component":"backend","endpoint":"generate","instance_id":7,"transport":{"nats_tcp":"subject-7"},"name":"foreign"}`
	if err := os.WriteFile(filepath.Join(w.kv, "v1", "instances", "dynamo%2Fbackend%2Fgenerate%2F7"), []byte(foreign), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := frozen.signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// The store lists both for some seconds yet.
	dead.kill()

	v := w.view(t, "--probe")
	if p := v.named(t, "sound").Probe; p == nil || p.Kind != "" || p.MS <= 0 || p.MS > 2000 {
		t.Errorf("the sound server answers %+v", p)
	}
	if p := v.named(t, "frozen").Probe; p == nil || p.Kind != "unresponsive" || p.Reason == "" {
		t.Errorf("the frozen server answers %+v", p)
	}
	if p := v.named(t, "dead").Probe; p == nil || p.Kind != "unreachable" || p.Reason == "" {
		t.Errorf("the dead server answers %+v", p)
	}
	if f := v.named(t, "foreign"); f.Probe != nil || !f.Source || f.Avail || slices.Contains(v.Avail, "7") || !slices.Contains(v.Source, "7") {
		t.Errorf("the foreign server is %+v", f)
	}
	// A probe reports nobody.
	if len(v.Avail) != 3 {
		t.Errorf("avail is %v, want all three", v.Avail)
	}

	table, _ := w.run(t, 0, nil, "migrate", "instances", "--probe")
	for name, want := range map[string]string{"sound": "ms", "frozen": "unresponsive", "foreign": "transport nats_tcp: listed, not routed to"} {
		if row := rowOf(table, name); !strings.Contains(strings.Join(row, " "), want) {
			t.Errorf("the row of %s is %q, want %s in it; the table is\n%s", name, row, want, table)
		}
	}
}
