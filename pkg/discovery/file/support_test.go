package file

import (
	"context"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

const (
	ep         = "v1/instances/dynamo/backend/generate/"
	bucketName = "v1/instances"
	// patience is how long a test waits. Only failing tests wait that long.
	patience = 10 * time.Second
)

func open(tb testing.TB, dir string) *Store {
	tb.Helper()
	return openWith(tb, Config{Dir: dir, timing: quick()})
}

func openWith(tb testing.TB, c Config) *Store {
	tb.Helper()
	s, err := Open(c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("Close: %v", err)
		}
	})
	return s
}

func put(t *testing.T, s *Store, key, value string) discovery.Lease {
	t.Helper()
	lease, err := s.Put(t.Context(), key, []byte(value), 0)
	if err != nil {
		t.Fatal(err)
	}
	return lease
}

// keys returns the keys that a new watch begins with.
func keys(t *testing.T, s *Store) string {
	t.Helper()
	for snap, err := range s.Watch(t.Context(), bucketName+"/") {
		if err != nil {
			t.Fatal(err)
		}
		return keysOf(snap)
	}
	return ""
}

func keysOf(snap discovery.Snapshot) string {
	var keys []string
	for _, r := range snap.Records {
		keys = append(keys, strings.TrimPrefix(r.Key, ep))
	}
	return strings.Join(keys, " ")
}

// until reads a watch until a set satisfies ok.
func until(t *testing.T, next func() (discovery.Snapshot, error, bool), ok func(discovery.Snapshot) bool) discovery.Snapshot {
	t.Helper()
	var last discovery.Snapshot
	for {
		snap, err, more := next()
		if !more || err != nil {
			t.Fatalf("the watch ended: %v; its last set: %s, stale: %v", err, keysOf(last), last.Stale)
		}
		if last = snap; ok(snap) {
			return snap
		}
	}
}

func is(want string) func(discovery.Snapshot) bool {
	return func(snap discovery.Snapshot) bool { return keysOf(snap) == want && snap.Stale == nil }
}

// watch returns a function that returns the next set of a watch.
func watch(t *testing.T, s *Store) func() (discovery.Snapshot, error, bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	next, stop := iter.Pull2(s.Watch(ctx, bucketName+"/"))
	t.Cleanup(func() { cancel(); stop() })
	return next
}

// recordPath returns the path of the record of a key under ep.
func recordPath(s *Store, id string) string {
	_, rest := bucketOf(ep + id)
	return filepath.Join(s.dir.path, "v1", "instances", fileName(rest))
}

func write(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// age sets a file's modification time to d ago.
func age(t *testing.T, path string, d time.Duration) {
	t.Helper()
	at := time.Now().Add(-d)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !gone(err) {
		t.Fatal(err)
	}
	return err == nil
}

// eventually waits until ok returns true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("not within %v: %s", patience, what)
		case <-tick.C:
		}
	}
}

// A logbook is a [slog.Handler] that keeps the lines at its level or above, which is
// that of warnings unless a test sets it.
type logbook struct {
	slog.Handler
	level slog.Level

	mu    sync.Mutex // guards lines
	lines []string
}

func newLogbook() *logbook { return &logbook{Handler: slog.DiscardHandler, level: slog.LevelWarn} }

func (l *logbook) Enabled(_ context.Context, level slog.Level) bool { return level >= l.level }

func (l *logbook) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Level.String() + " " + r.Message)
	r.Attrs(func(a slog.Attr) bool { b.WriteString(" " + a.String()); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, b.String())
	return nil
}

// count returns how many lines have all texts in them.
func (l *logbook) count(texts ...string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range l.lines {
		if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
			n++
		}
	}
	return n
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}
