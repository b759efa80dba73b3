//go:build unix

package cmd_test

import (
	"encoding/json"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// changeLine is a line of `migrate instances --watch --output json`.
type changeLine struct {
	Time           time.Time
	Type, ID, Name string
	Reason         string
	Down           *struct {
		Kind, Reason, Reporter string
		Until                  time.Time
	}
}

// watched is a running `migrate instances --watch` whose lines a test reads.
type watched struct {
	*process
	seen int // lines that next has returned
}

func (w *world) watch(t *testing.T, flags ...string) *watched {
	t.Helper()
	return &watched{process: w.start(t, nil, append([]string{"migrate", "instances", "--watch", "--cooldown", "1m"}, flags...)...)}
}

// next returns the next line, and waits for it.
func (p *watched) next(t *testing.T) string {
	t.Helper()
	if err := p.await(p.stdout, "^.*\n", p.seen+1); err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(p.stdout.String(), "\n")
	p.seen++
	return strings.TrimSuffix(lines[p.seen-1], "\n")
}

// expect reads a JSON line of that type and name.
func (p *watched) expect(t *testing.T, kind, name string) changeLine {
	t.Helper()
	line := p.next(t)
	var c changeLine
	if err := json.Unmarshal([]byte(line), &c); err != nil {
		t.Fatalf("%v in line %s", err, line)
	}
	if c.Type != kind || c.Name != name || c.Time.IsZero() || (c.ID == "") != (name == "") {
		t.Fatalf("the line is %s, want %s %s; all:\n%s", line, kind, name, p.stdout)
	}
	return c
}

// TestWatchPrintsChanges follows servers that start, are reported, and end in either way.
func TestWatchPrintsChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.fileReporter(t)
	one := w.serve(t, "server1")
	p, text := w.watch(t, "--output", "json"), w.watch(t)
	// Step by step, since a slow watcher gets only the latest set.
	step := func(kind, name string) (changeLine, string) {
		t.Helper()
		line := text.next(t)
		if _, err := time.Parse(time.DateTime+".000", line[:min(len(line), 23)]); err != nil || !slices.Equal(strings.Fields(line)[2:4], []string{kind, name}) {
			t.Errorf("the line is %q, want the time and %s %s", line, kind, name)
		}
		return p.expect(t, kind, name), line
	}
	step("joined", "server1")
	two := w.serve(t, "server2")
	step("joined", "server2")
	reported := r.report(t, "server1", "laptop-1", 4*time.Second)
	down, line := step("down", "server1")
	if down.Down == nil || down.Down.Kind != "failed" || down.Down.Reason != reported.Reason || down.Down.Reporter != "laptop-1" {
		t.Errorf("the line of the report is %+v", down)
	}
	if !strings.Contains(line, "  failed: Stream ended before generation completed; reported by laptop-1, back in ") {
		t.Errorf("the line of the report is %q", line)
	}
	back, _ := step("restored", "server1")
	if early := reported.Until.Sub(back.Time); early > 100*time.Millisecond {
		t.Errorf("it is back %v too soon", early)
	}
	if err := two.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	step("left", "server2")
	one.kill()
	step("left", "server1")
	if strings.Contains(text.stdout.String(), "\x1b") {
		t.Errorf("what goes into a pipe has colours: %q", text.stdout)
	}
	for _, end := range []*watched{p, text} {
		if err := end.signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		w.ended(t, end.process, 130)
	}
}

// TestWatchSurvivesAnOutage kills etcd under a watch, longer than the cooldown
// of a report, and starts it again.
func TestWatchSurvivesAnOutage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server, r := w.useEtcd(t)
	w.serve(t, "server1")
	p := w.watch(t, "--output", "json", "--log", "error")
	p.expect(t, "joined", "server1")
	r.report(t, "server1", "laptop-1", 3*time.Second)
	p.expect(t, "down", "server1")
	server.Kill()
	if c := p.expect(t, "stale", ""); c.Reason == "" {
		t.Errorf("it doesn't say why: %+v", c)
	}
	// The watch goes by its own clock until the store is back.
	p.expect(t, "restored", "server1")
	server.Restart()
	w.serve(t, "server2")
	// In either order, since the two sets of the view recover independently.
	for fresh, joined := false, false; !fresh || !joined; {
		var c changeLine
		if err := json.Unmarshal([]byte(p.next(t)), &c); err != nil {
			t.Fatal(err)
		}
		switch {
		case c.Type == "fresh" && !fresh:
			fresh = true
		case c.Type == "joined" && c.Name == "server2" && !joined:
			joined = true
		default:
			t.Fatalf("a line is %+v; all:\n%s", c, p.stdout)
		}
	}
	if err := p.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.ended(t, p.process, 130)
}
