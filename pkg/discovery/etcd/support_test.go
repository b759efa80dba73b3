package etcd

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/etcd/etcdtest"
)

const (
	prefix = "v1/instances/dynamo/backend/generate/"
	one    = prefix + "1"
	two    = prefix + "2"

	// patient is how long a test waits for what it expects, on a busy machine.
	patient = 30 * time.Second
	// healTime is how long a store may take to recover.
	healTime = 5 * time.Second
)

// openStore opens a store with a short lease, closed with the test.
func openStore(tb testing.TB, cfg Config) *Store {
	tb.Helper()
	if cfg.LeaseTTL == 0 {
		cfg.LeaseTTL = time.Second
	}
	s, err := Open(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		// If the test has left etcd down, an error is right.
		if err := s.Close(); err != nil {
			tb.Logf("Close: %v", err)
		}
	})
	return s
}

func at(servers ...*etcdtest.Server) Config {
	var cfg Config
	for _, s := range servers {
		cfg.Endpoints = append(cfg.Endpoints, s.Endpoint())
	}
	return cfg
}

func put(tb testing.TB, s *Store, key, value string, ttl time.Duration) discovery.Lease {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patient)
	defer cancel()
	lease, err := s.Put(ctx, key, []byte(value), ttl)
	if err != nil {
		tb.Fatal(err)
	}
	return lease
}

// observer reads one watch.
type observer struct {
	tb     testing.TB
	pull   func() (discovery.Snapshot, error, bool)
	cancel context.CancelFunc
}

func observe(tb testing.TB, s *Store) *observer {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 2*patient)
	pull, stop := iter.Pull2(s.Watch(ctx, prefix))
	tb.Cleanup(func() { cancel(); stop() })
	return &observer{tb: tb, pull: pull, cancel: cancel}
}

// until reads sets until one is right.
func (o *observer) until(what string, right func(discovery.Snapshot) bool) {
	o.tb.Helper()
	var last string
	for {
		snap, err, _ := o.pull()
		if err != nil {
			o.tb.Fatalf("the watch ended before %s: %v; last was %s", what, err, last)
		}
		last = fmt.Sprintf("%d records, stale: %v", len(snap.Records), snap.Stale)
		if right(snap) {
			return
		}
	}
}

// untilFresh reads until a current set has exactly these keys.
func (o *observer) untilFresh(keys ...string) {
	o.tb.Helper()
	o.until(fmt.Sprintf("a current set of %v", keys), func(snap discovery.Snapshot) bool {
		return snap.Stale == nil && slices.Equal(slices.Sorted(maps.Keys(values(snap))), keys)
	})
}

// untilStale reads until a set is marked stale, which must still be of these keys.
func (o *observer) untilStale(keys ...string) {
	o.tb.Helper()
	o.until("a stale set", func(snap discovery.Snapshot) bool {
		if snap.Stale == nil {
			return false
		}
		if got := slices.Sorted(maps.Keys(values(snap))); !slices.Equal(got, keys) {
			o.tb.Errorf("the stale set is of %v, want the last known, %v", got, keys)
		}
		o.tb.Logf("stale: %v", snap.Stale)
		return true
	})
}

func values(snap discovery.Snapshot) map[string]string {
	m := make(map[string]string)
	for _, r := range snap.Records {
		m[r.Key] = string(r.Value)
	}
	return m
}

// healed checks and logs the time since the end of an outage.
func healed(tb testing.TB, what string, since time.Time) {
	tb.Helper()
	took := time.Since(since)
	tb.Logf("%s %v after etcd's return", what, took.Round(time.Millisecond))
	if took > healTime {
		tb.Errorf("%s %v after etcd's return, want %v at the most", what, took, healTime)
	}
}

// logs is a [slog.Handler] that keeps the lines.
type logs struct {
	mu    sync.Mutex
	lines []line
	added chan struct{} // closed, and made anew, with each line
}

type line struct {
	level slog.Level
	text  string
	attrs string // key=value, each followed by a space
}

// The lines that tests wait for.
const (
	lineWarned   = "can't keep the registration in etcd, trying until it is back"
	lineLost     = "etcd has lost the lease, registering again"
	lineHealed   = "registered in etcd again"
	lineAgain    = "registered again"
	lineReplaced = "replaced by another owner, registering again when the key is free"
)

func capture() (*logs, *slog.Logger) {
	l := &logs{added: make(chan struct{})}
	return l, slog.New(l)
}

func (l *logs) Enabled(context.Context, slog.Level) bool { return true }
func (l *logs) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *logs) WithGroup(string) slog.Handler            { return l }

func (l *logs) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var attrs strings.Builder
	r.Attrs(func(a slog.Attr) bool {
		attrs.WriteString(a.String() + " ")
		return true
	})
	l.lines = append(l.lines, line{r.Level, r.Message, attrs.String()})
	close(l.added)
	l.added = make(chan struct{})
	return nil
}

// wait returns when the text has been logged n times.
func (l *logs) wait(tb testing.TB, text string, n int) {
	tb.Helper()
	l.waitFor(tb, fmt.Sprintf("%q, %d times", text, n), func() bool { return l.count(text) >= n })
}

// waitCause returns when a line with the text has named the cause.
func (l *logs) waitCause(tb testing.TB, text, cause string) {
	tb.Helper()
	l.waitFor(tb, fmt.Sprintf("%q because of %q", text, cause), func() bool {
		return slices.ContainsFunc(l.all(), func(line line) bool {
			return line.text == text && strings.Contains(line.attrs, cause)
		})
	})
}

func (l *logs) waitFor(tb testing.TB, what string, logged func() bool) {
	tb.Helper()
	end := time.NewTimer(patient)
	defer end.Stop()
	for {
		l.mu.Lock()
		added := l.added
		l.mu.Unlock()
		if logged() {
			return
		}
		select {
		case <-added:
		case <-end.C:
			tb.Fatalf("the log did not have %s within %v; it is %v", what, patient, l.all())
		}
	}
}

// count returns how often the text has been logged.
func (l *logs) count(text string) int {
	n := 0
	for _, line := range l.all() {
		if line.text == text {
			n++
		}
	}
	return n
}

func (l *logs) all() []line {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

// warnings returns the lines that were logged at warn level or above.
func (l *logs) warnings() []string {
	var texts []string
	for _, line := range l.all() {
		if line.level >= slog.LevelWarn {
			texts = append(texts, line.text)
		}
	}
	return texts
}

// warnedOnce checks that there was one warning for one outage.
func (l *logs) warnedOnce(tb testing.TB) {
	tb.Helper()
	if w := l.warnings(); len(w) != 1 {
		tb.Errorf("one outage was warned of %d times: %q", len(w), w)
	}
}
