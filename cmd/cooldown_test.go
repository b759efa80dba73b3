//go:build unix

package cmd_test

import (
	"testing"
	"time"
)

// TestCooldownIsFiveSeconds makes many requests that prefer a server which always fails:
// it gets one of them every five seconds.
func TestCooldownIsFiveSeconds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve(t, "server1", "--failure-mode", "always")
	w.serve(t, "server2", "--delay", "1ms")
	began := time.Now()
	stdout, _ := w.run(t, 0, nil, "migrate", "request", "hello world", "--instance", "server1", "--count", "30", "--output", "json")
	took := time.Since(began)
	all, err := parseEvents(stdout)
	if err != nil {
		t.Fatal(err)
	}
	breaks := 0
	for _, r := range all {
		breaks += len(r.receipt().Attempts) - 1
		if got, _ := r.receipt().field("served"); got != "server2:0-11" {
			t.Errorf("a request was served by %s", got)
		}
	}
	// It gets one more for each further five seconds that a busy machine needs.
	if most := 1 + int(took/(5*time.Second)); breaks < 1 || breaks > most {
		t.Errorf("server1 broke %d of %d requests in %v, want 1 to %d", breaks, len(all), took, most)
	}
}
