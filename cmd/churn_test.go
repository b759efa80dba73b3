//go:build unix

package cmd_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"testing"
	"time"
)

const (
	churnServers = 10
	churnCallers = 1000
	// churnGrowth is how much more a client may hold after a churn than before it: a few
	// words for each request would exceed it.
	churnGrowth = 512 << 10
)

// TestChurn keeps 1,000 requests running against ten server processes, of which
// one is killed every second and replaced. Every answer must be exact, and once all
// requests have ended neither the client nor a server that survived may hold more than
// before. It kills for 3 s, or for as long as the variable CHURN says.
//
//nolint:paralleltest // a thousand concurrent requests would slow other tests down
func TestChurn(t *testing.T) {
	lasts := churnTime(t)
	w := newWorld(t)
	serve := func(n int) *process {
		return w.serve(t, fmt.Sprintf("server%d", n), "--delay", "10ms", "--metrics-listen", "127.0.0.1:0")
	}
	fleet := make([]*process, churnServers)
	for i := range fleet {
		fleet[i] = serve(i)
	}
	stdin, enough, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = stdin.Close(), enough.Close() }) // the second time, if all is well
	client := w.start(t, stdin, "churnclient")
	if err := client.await(client.stdout, "ready", 1); err != nil {
		t.Fatal(err)
	}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for n, end := len(fleet), time.Now().Add(lasts); time.Now().Before(end); n++ {
		<-ticker.C
		fleet[0].kill()
		fleet = append(fleet[1:], serve(n))
	}
	if err := enough.Close(); err != nil {
		t.Fatal(err)
	}
	w.ended(t, client, 0)

	var r churnResult
	if err := json.Unmarshal([]byte(client.stdout.String()[len("ready\n"):]), &r); err != nil {
		t.Fatal(err)
	}
	if r.After.Goroutines > r.Before.Goroutines || r.After.Memory > r.Before.Memory+churnGrowth {
		t.Errorf("the client has %+v, and had %+v before", r.After, r.Before)
	}
	// A server may not have noticed yet that a connection is closed.
	fresh, deadline := serverGoroutines(t, serve(-1)), time.Now().Add(patience)
	for used := ""; used != fresh; used = serverGoroutines(t, fleet[0]) {
		if time.Now().After(deadline) {
			t.Fatalf("a server that was used has %s goroutines, a fresh one %s", used, fresh)
		}
	}
	if r.Migrated == 0 {
		t.Error("no request was migrated")
	}
	t.Logf("%+v", r)
}

// churnTime returns for how long servers are killed.
func churnTime(t *testing.T) time.Duration {
	t.Helper()
	s := os.Getenv("CHURN")
	if s == "" {
		return 3 * time.Second
	}
	lasts, err := time.ParseDuration(s)
	if err != nil {
		t.Fatalf("CHURN: %v", err)
	}
	return lasts
}

// serverGoroutines returns how many goroutines a server has, by its metrics.
func serverGoroutines(t *testing.T, p *process) string {
	t.Helper()
	return regexp.MustCompile(`(?m)^go_goroutines (\d+)$`).FindStringSubmatch(get(t, metricsURL(t, p)))[1]
}
