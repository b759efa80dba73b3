//go:build unix

package cmd_test

import (
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// rowOf returns the fields of a server's row in a table, or nil if there is none.
func rowOf(text, name string) []string {
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); slices.Contains(fields, name) {
			return fields
		}
	}
	return nil
}

// isRow returns a condition for [window.await]: the row of a server has these fields in
// this order.
func isRow(name string, fields ...string) func(string) bool {
	return func(text string) bool {
		return strings.Contains(" "+strings.Join(rowOf(text, name), " ")+" ", " "+strings.Join(fields, " ")+" ")
	}
}

var colour = regexp.MustCompile("\x1b\\[[0-9;]+m")

// TestLiveTable watches a server being reported, its countdown and its return; then it
// makes the window narrow, and leaves.
func TestLiveTable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.fileReporter(t)
	w.serve(t, "server1")
	w.serve(t, "server2")
	win := w.openWindow(t, 140, 24, nil, "migrate", "instances", "--watch", "--cooldown", "1m")
	win.await(t, "server1", isRow("server1", "yes", "yes"))
	win.await(t, "server2", isRow("server2", "yes", "yes"))

	r.report(t, "server1", "laptop-1", 5*time.Second)
	text := win.await(t, "server1 down", isRow("server1", "yes", "no", "failed"))
	if !strings.Contains(text, "Stream ended before generation completed") || !strings.Contains(text, "laptop-1") {
		t.Errorf("it doesn't say why, or who says so:\n%s", text)
	}
	if !isRow("server2", "yes", "yes")(text) || !strings.Contains(text, "2 in source, 1 avail, 1 down") {
		t.Errorf("server1 is down and the window shows:\n%s", text)
	}
	began := len(win.history())
	win.await(t, "server1 back", isRow("server1", "yes", "yes"))
	if text := win.text(); strings.Contains(text, "failed") || !strings.Contains(text, "2 in source, 2 avail, 0 down") {
		t.Errorf("server1 is back and the window shows:\n%s", text)
	}
	checkCountdown(t, win.history()[began:])
	w.serve(t, "server3")
	win.await(t, "server3", isRow("server3", "yes", "yes"))

	r.report(t, "server2", "laptop-1", time.Minute)
	win.await(t, "server2 down", isRow("server2", "yes", "no", "failed"))
	win.fits(t)
	win.resize(t, 40, 12)
	text = win.await(t, "narrow table", func(text string) bool {
		return isRow("server2", "no", "failed", "in")(text) && !strings.Contains(text, "REASON")
	})
	for line := range strings.Lines(text) {
		if n := len([]rune(strings.TrimSpace(line))); n > 40 {
			t.Errorf("a line has %d columns, of 40: %q", n, line)
		}
	}
	if !colour.MatchString(win.written()) {
		t.Error("there are no colours")
	}

	win.typed(t, "q")
	w.ended(t, win.p, 0)
	// The last table stays on the main screen.
	win.await(t, "last table", func(text string) bool {
		return isRow("server2", "no", "failed")(text) && !strings.Contains(text, "q leaves")
	})
}

// checkCountdown checks that the times until a return go down second by second.
// A machine that is too busy to draw for one may skip it.
func checkCountdown(t *testing.T, shown []string) {
	t.Helper()
	var seconds []string
	for _, text := range shown {
		for _, m := range regexp.MustCompile(`in (\d)s`).FindAllStringSubmatch(text, -1) {
			seconds = append(seconds, m[1])
		}
	}
	seconds = slices.Compact(seconds)
	if n := len(seconds); n < 3 || !slices.IsSortedFunc(seconds, func(a, b string) int { return strings.Compare(b, a) }) {
		t.Errorf("the countdown is %v", seconds)
	}
}

// TestLiveTableInANarrowWindow needs no wrapping, from its first frame on.
func TestLiveTableInANarrowWindow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.fileReporter(t)
	w.serve(t, "server1")
	w.serve(t, "server2")
	r.report(t, "server1", "laptop-with-a-long-name-1", time.Minute)
	win := w.openWindow(t, 40, 6, nil, "migrate", "instances", "--watch")
	win.await(t, "server1 down", isRow("server1", "no", "failed", "in"))
	win.await(t, "server2", isRow("server2", "yes"))
	win.typed(t, "\x03")
	w.ended(t, win.p, 130)
	win.fits(t)
}

// TestLiveTableWithoutColours obeys NO_COLOR, and gives the terminal back
// whatever ends it.
func TestLiveTableWithoutColours(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]struct {
		leave func(*testing.T, *window)
		code  int
	}{
		"q":      {func(t *testing.T, win *window) { t.Helper(); win.typed(t, "q") }, 0},
		"Ctrl-C": {func(t *testing.T, win *window) { t.Helper(); win.typed(t, "\x03") }, 130},
		"SIGTERM": {func(t *testing.T, win *window) {
			t.Helper()
			if err := win.p.signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}, 130},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.serve(t, "server1")
			win := w.openWindow(t, 80, 24, []string{"NO_COLOR=1"}, "migrate", "instances", "--watch")
			win.await(t, "server1", isRow("server1", "yes", "yes"))
			if win.mode(t) == win.before {
				t.Error("keys are not read one by one")
			}
			end.leave(t, win)
			w.ended(t, win.p, end.code)
			if win.mode(t) != win.before {
				t.Error("the terminal was left in another mode than it had")
			}
			win.await(t, "cursor", func(string) bool { return strings.Contains(win.written(), "\x1b[?25h") })
			win.await(t, "last table", isRow("server1", "yes", "yes"))
			if colour.MatchString(win.written()) {
				t.Errorf("there are colours: %q", colour.FindString(win.written()))
			}
		})
	}
}

// TestTableOnATerminal prints one table in windows, in colour and without.
func TestTableOnATerminal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.fileReporter(t)
	w.serve(t, "server1")
	w.serve(t, "server2")
	r.report(t, "server1", "laptop-1", 2*time.Minute)
	for _, columns := range []int{40, 80, 140} {
		for _, env := range [][]string{nil, {"NO_COLOR=1"}, {"TERM=dumb"}} {
			win := w.openWindow(t, columns, 10, env, "migrate", "instances")
			w.ended(t, win.p, 0)
			win.await(t, "server1", isRow("server1", "no", "failed"))
			win.await(t, "server2", isRow("server2", "yes"))
			win.fits(t)
			if got, want := strings.Contains(win.written(), "\x1b"), env == nil; got != want {
				t.Errorf("with %v there are colours: %v, want %v", env, got, want)
			}
		}
	}
}
