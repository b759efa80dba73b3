//go:build unix

package cmd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// optional returns how a test gives up for which something is missing that the
// README calls optional: it is skipped, or fails where MIGRATE_REQUIRE_OPTIONAL
// is set, as in .ci/run.
func optional(t *testing.T) (giveUp func(format string, args ...any)) {
	t.Helper()
	if os.Getenv("MIGRATE_REQUIRE_OPTIONAL") != "" {
		return t.Fatalf
	}
	return t.Skipf
}

// python starts the client in docs/clients/python, or skips the test where there
// is no python3.
func (w *world) python(t *testing.T, args ...string) *process {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		optional(t)("the client in Python needs python3: %v", err)
	}
	client, err := filepath.Abs("../docs/clients/python/migrate_client.py")
	if err != nil {
		t.Fatal(err)
	}
	return w.start(t, nil, append([]string{"python3", client}, args...)...)
}

// echoed is what an echo server answers to text, an item a line.
func echoed(server, text string) string {
	var b strings.Builder
	for _, c := range text {
		b.WriteString("from server: " + server + ", data: " + string(c) + "\n")
	}
	return b.String()
}

// wantAnswer checks that the answer to text came whole, each item once and in
// order: the first items from one server, and the rest, if anything, from another.
// It returns how many those are.
func wantAnswer(t *testing.T, client *process, text, first, second string) (fromFirst int) {
	t.Helper()
	got := client.stdout.String()
	fromFirst = strings.Count(got, "from server: "+first+",")
	if fromFirst <= len(text) && got == echoed(first, text[:fromFirst])+echoed(second, text[fromFirst:]) {
		return fromFirst
	}
	t.Fatalf("the answer to %.50q is\n%.2000s\nstandard error:\n%s", text, got, client.stderr)
	return 0
}

// TestPythonClientCarriesOn takes a server away in the middle of an answer. The
// client finds both in the file store.
func TestPythonClientCarriesOn(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		sig    syscall.Signal
		reason string
	}{
		"killed":      {syscall.SIGKILL, ""}, // closed or reset
		"told to end": {syscall.SIGTERM, "draining; server is leaving"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			first := w.serve(t, "first", "--delay", "500ms", "--drain-timeout", "50ms")
			client := w.python(t, fox)
			if err := client.await(client.stdout, "server: first", 3); err != nil {
				t.Fatal(err)
			}
			w.serve(t, "second")
			if err := first.signal(tt.sig); err != nil {
				t.Fatal(err)
			}
			w.ended(t, client, 0)
			n := wantAnswer(t, client, fox, "first", "second")
			if n < 3 || n == len(fox) {
				t.Errorf("%d items came from the first server", n)
			}
			stderr := client.stderr.String()
			if strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, tt.reason) {
				t.Errorf("want one break, %q; standard error:\n%s", tt.reason, stderr)
			}
		})
	}
}

// TestPythonClientFaults has the first server break the answer in each way there
// is. The client is given both addresses.
func TestPythonClientFaults(t *testing.T) {
	t.Parallel()
	const text = "hello"
	for kind, tt := range map[string]struct {
		items  int    // from the first server
		reason string // "" where it is the system's to name
	}{
		"error":     {2, "Stream ended before generation completed"},
		"close":     {2, "connection closed before the end"},
		"reset":     {2, ""},
		"stall":     {2, "timed out"},
		"garbage":   {2, "can't decode"},
		"half-line": {2, "connection closed before the end"},
		"no-end":    {5, "connection closed before the end"},
		"bad-count": {5, "end line with id 6, want 5"},
		"refuse":    {0, "connection closed before the end"},
		"overload":  {0, "overloaded; server is overloaded"},
		"exit":      {2, ""},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.serve(t, "first", "--failure-mode", "always", "--failure-kind", kind)
			w.serve(t, "second")
			client := w.python(t, text, w.address(t, "first"), w.address(t, "second"))
			w.ended(t, client, 0)
			if n := wantAnswer(t, client, text, "first", "second"); n > tt.items || n < tt.items && tt.reason != "" {
				t.Errorf("%d items came from the first server, want %d", n, tt.items)
			}
			stderr := client.stderr.String()
			if strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, tt.reason) {
				t.Errorf("want one break, %q; standard error:\n%s", tt.reason, stderr)
			}
		})
	}
}

// TestPythonClientGrantsCredit has an answer of several times the credit that a
// stream starts with. A server that is granted none hands it back after a minute.
func TestPythonClientGrantsCredit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve(t, "only")
	text := strings.Repeat(fox, 500)
	if n := len(echoed("only", text)); n < 2*256<<10 { // and its lines are longer still
		t.Fatalf("the answer has %d bytes only", n)
	}
	client := w.python(t, text)
	w.ended(t, client, 0)
	wantAnswer(t, client, text, "only", "")
	if stderr := client.stderr.String(); stderr != "" {
		t.Errorf("standard error has:\n%s", stderr)
	}
}

// TestPythonClientGivesUp has nobody who could answer.
func TestPythonClientGivesUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	client := w.python(t, "hello")
	w.ended(t, client, 1)
	if got := client.stderr.String(); got != "Error: no instances left, 0 tried\n" {
		t.Errorf("standard error has %q", got)
	}
}
