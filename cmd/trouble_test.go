//go:build unix

package cmd_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

const fox = "the quick brown fox jumps over the lazy dog"

// TestTrouble puts the serving process through something in the middle of a slow
// stream, and sees the request carried on exactly, with the break called by its
// name. TestNetworkBreaks does the same with its network.
func TestTrouble(t *testing.T) {
	t.Parallel()
	signal := func(sig syscall.Signal) func(*testing.T, *process) {
		return func(t *testing.T, p *process) {
			t.Helper()
			if err := p.signal(sig); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The shortest there is, and more than a busy machine makes a sound server pause.
	const stall = 6 * time.Second
	tests := []struct {
		name     string
		does     func(*testing.T, *process)
		kinds    string
		reported bool
		atLeast  time.Duration // no break before that
	}{
		{"killed", signal(syscall.SIGKILL), "truncated reset", true, 0},
		{"frozen", signal(syscall.SIGSTOP), "stalled", true, stall},
		{"told to end", signal(syscall.SIGTERM), "draining", false, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			first := w.serve(t, "first", "--delay", "20ms", "--drain-timeout", "50ms")
			w.serve(t, "second", "--delay", "20ms")
			client := w.start(t, nil, "migrate", "request", fox, "--instance", "first", "--resume",
				"--output", "json", "--stall-timeout", stall.String())
			if err := client.await(client.stdout, `"type":"item"`, 5); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			tt.does(t, first)
			if err := client.await(client.stdout, `"type":"break"`, 1); err != nil {
				t.Fatal(err)
			}
			// The last line came up to a delay and a look of the watchdog before.
			if took := time.Since(began); took < tt.atLeast-100*time.Millisecond {
				t.Errorf("it broke after %v, before its bound", took)
			}
			w.ended(t, client, 0)
			all, err := parseEvents(client.stdout.String())
			if err != nil {
				t.Fatal(err)
			}
			receipt := all[0].receipt()
			if receipt.Outcome != "success" || receipt.Repeated != 0 || len(receipt.Attempts) != 2 {
				t.Fatalf("the receipt is %+v", receipt)
			}
			if a := receipt.Attempts[0]; !strings.Contains(tt.kinds, a.Kind) || a.Reported != tt.reported {
				t.Errorf("the first attempt is %+v, want one of %s, reported %v", a, tt.kinds, tt.reported)
			}
		})
	}
}

// TestManyStreamsWhenAServerDies has 200 streams running when one of two
// servers is killed.
func TestManyStreamsWhenAServerDies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.serve(t, "first", "--delay", "50ms")
	w.serve(t, "second", "--delay", "1ms")
	client := w.start(t, nil, "migrate", "request", fox, "--instance", "first", "--resume",
		"--output", "json", "--count", "200", "--concurrency", "200")
	if err := client.await(client.stdout, `"index":2,`, 200); err != nil {
		t.Fatal(err)
	}
	first.kill()
	w.ended(t, client, 0)
	n := 0
	for line := range strings.Lines(client.stdout.String()) {
		var receipt event
		if err := json.Unmarshal([]byte(line), &receipt); err != nil {
			t.Fatal(err)
		}
		if receipt.Type != "result" {
			continue
		}
		n++
		if receipt.Outcome != "success" || receipt.Items != len(fox) || receipt.Repeated != 0 {
			t.Errorf("the receipt is %+v", receipt)
		}
		onFirst := 0
		for _, a := range receipt.Attempts {
			if a.Name == "first" {
				onFirst++
			}
		}
		if onFirst > 1 {
			t.Errorf("%d attempts on the dead server: %+v", onFirst, receipt.Attempts)
		}
	}
	if n != 200 {
		t.Errorf("%d requests, want 200", n)
	}
}

// TestRollingRestart replaces every server of a fleet, one after the other,
// under load. With --resume nothing is lost, nothing comes twice, and no server
// is reported; the command checks every answer.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	fleet := make([]*process, 3)
	serve := func(i, generation int) *process {
		return w.serve(t, fmt.Sprintf("server%d-%d", i, generation), "--delay", "2ms", "--drain-timeout", "20ms")
	}
	for i := range fleet {
		fleet[i] = serve(i, 1)
	}
	client := w.start(t, nil, "migrate", "request", fox, "--resume", "--count", "2000", "--concurrency", "20",
		"--output", "json", "--attempts", "1", "--start-timeout", patience.String())
	if err := client.await(client.stdout, `"type":"result"`, 20); err != nil {
		t.Fatal(err)
	}
	for i, old := range fleet {
		fresh := serve(i, 2)
		if err := old.signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		w.ended(t, old, 0)
		fleet[i] = fresh
	}
	if err := client.signal(syscall.Signal(0)); err != nil {
		t.Fatalf("the load was over before the fleet was replaced: %v", err)
	}
	w.ended(t, client, 0)
	out := client.stdout.String()
	if n := strings.Count(out, `"outcome":"success"`); n != 2000 {
		t.Errorf("%d of 2000 requests succeeded", n)
	}
	if !strings.Contains(out, `"kind":"draining"`) {
		t.Error("no stream was handed back")
	}
	for _, bad := range []string{`"reported":true`, `"repeated":1`} {
		if strings.Contains(out, bad) {
			t.Errorf("a receipt has %s", bad)
		}
	}
}
