//go:build unix

package cmd_test

import (
	"slices"
	"strings"
	"testing"
)

// TestEveryFailureKind breaks a stream in each way that a server has, between
// two processes, and sees the request carried on with nothing lost and nothing
// twice; the client must call the break by its name.
func TestEveryFailureKind(t *testing.T) {
	t.Parallel()
	const text = "the quick brown fox jumps over the lazy dog"
	tests := []struct {
		kind  string
		seen  []string // one of these
		items int      // that the failing server has sent
	}{
		{"error", []string{"failed"}, 2},
		{"close", []string{"truncated"}, 2},
		{"reset", []string{"reset"}, 2},
		{"stall", []string{"stalled"}, 2},
		{"garbage", []string{"protocol"}, 2},
		{"half-line", []string{"truncated"}, 2},
		{"no-end", []string{"truncated"}, len(text)},
		{"bad-count", []string{"protocol"}, len(text)},
		{"refuse", []string{"truncated", "reset"}, 0},
		{"overload", []string{"overloaded"}, 0},
		{"exit", []string{"truncated", "reset"}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.kind, func(t *testing.T) {
			t.Parallel()
			// What has failed under the eyes of one client may be spared by the
			// next, and is gone after exit: each client has its own servers.
			request := func(flags ...string) string {
				w := newWorld(t)
				faulty := w.serve(t, "faulty", "--failure-mode", "always", "--failure-kind", tt.kind)
				w.serve(t, "sound")
				args := []string{"migrate", "request", text, "--instance", "faulty"}
				if tt.kind == "stall" {
					args = append(args, "--item-timeout", "3s")
				}
				stdout, stderr := w.run(t, 0, nil, append(args, flags...)...)
				if stderr != "" {
					t.Errorf("standard error is %q", stderr)
				}
				if tt.kind == "exit" {
					w.ended(t, faulty, 1)
				}
				return stdout
			}
			if got := request("--resume", "--output", "raw"); got != text+"\n" {
				t.Errorf("with --resume the answer is %q, want %q", got, text)
			}
			if got := request("--output", "raw"); got != text+"\n" {
				t.Errorf("without --resume the answer is %q, want %q", got, text)
			}
			all, err := parseEvents(request("--resume", "--output", "json"))
			if err != nil {
				t.Fatal(err)
			}
			checkFault(t, all[0].receipt(), tt.kind, tt.seen, tt.items)
		})
	}
}

func checkFault(t *testing.T, receipt event, kind string, seen []string, items int) {
	t.Helper()
	tried := slices.Concat(receipt.Refusals, receipt.Attempts)
	if receipt.Outcome != "success" || receipt.Repeated != 0 || len(tried) != 2 {
		t.Fatalf("the receipt is %+v, want success at the second server and nothing twice", receipt)
	}
	first := tried[0]
	if first.Name != "faulty" || !slices.Contains(seen, first.Kind) {
		t.Errorf("the break at %s is %q, want %s", first.Name, first.Kind, strings.Join(seen, " or "))
	}
	if refused := kind == "overload"; first.Reported == refused {
		t.Errorf("reported is %v", first.Reported)
	}
	sent := 0
	for _, s := range receipt.Served {
		if s.Name == "faulty" {
			sent = s.To - s.From
		}
	}
	if sent != items {
		t.Errorf("the failing server has sent %d items, want %d", sent, items)
	}
}
