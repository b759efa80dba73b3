package kubernetes

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/kubernetes/kubetest"
)

const (
	prefix = "v1/instances/dynamo/backend/generate/"
	one    = prefix + "1"
	two    = prefix + "2"

	// patient is how long a test waits for what it expects, on a busy machine.
	patient = 40 * time.Second
	// healTime is how long a store may take to recover on a busy machine. Alone it takes
	// a second.
	healTime = 20 * time.Second

	space = "test" // the namespace

	mergePatch = "application/merge-patch+json"
)

// leasesPath is the path of the namespace's Leases.
const leasesPath = "/apis/coordination.k8s.io/v1/namespaces/" + space + "/leases"

// leasePath returns the path of the Lease of the record one.
func leasePath() string { return leasesPath + "/" + keptName(one) }

// startServer starts an API server with the tests' namespace.
func startServer(tb testing.TB, cfg kubetest.Config) *kubetest.Server {
	tb.Helper()
	server := kubetest.Start(tb, cfg)
	server.Namespace(space)
	return server
}

// admin is the configuration of a store that may do everything.
func admin(s *kubetest.Server) Config {
	return Config{Kubeconfig: s.Kubeconfig(kubetest.User{Token: kubetest.AdminToken}, space)}
}

// via is admin, by way of a proxy.
func via(s *kubetest.Server, url string) Config {
	return Config{Kubeconfig: s.KubeconfigAt(url, kubetest.User{Token: kubetest.AdminToken}, space)}
}

// openStore opens a store with a short lease, closed with the test.
func openStore(tb testing.TB, cfg Config) *Store {
	tb.Helper()
	if cfg.LeaseTTL == 0 {
		cfg.LeaseTTL = 2 * time.Second
	}
	s, err := Open(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		// If the test has left the server down, an error is right.
		if err := s.Close(); err != nil {
			tb.Logf("Close: %v", err)
		}
	})
	return s
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

// crash ends a store's work like a crash of its process.
func crash(s *Store) { kill(s) }

// observer reads one watch.
type observer struct {
	tb     testing.TB
	pull   func() (discovery.Snapshot, error, bool)
	cancel context.CancelFunc
	always []string // keys that every set must have
}

func observe(tb testing.TB, s *Store) *observer {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 3*patient)
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
		for _, key := range o.always {
			if _, ok := values(snap)[key]; !ok {
				o.tb.Fatalf("a set lacks %s, whose owner lives: %s", key, last)
			}
		}
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
	tb.Logf("%s %v after the server's return", what, took.Round(time.Millisecond))
	if took > healTime {
		tb.Errorf("%s %v after the server's return, want %v at the most", what, took, healTime)
	}
}

// exists reports whether there is an object at the path.
func exists(tb testing.TB, s *kubetest.Server, path string) bool {
	tb.Helper()
	status, answer, err := s.Request(tb.Context(), http.MethodGet, path, "", nil)
	if err != nil || status != http.StatusOK && status != http.StatusNotFound {
		tb.Fatalf("GET %s: status %d, %v: %s", path, status, err, answer)
	}
	return status == http.StatusOK
}

// eventually waits until ok returns true.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	end := time.NewTimer(patient)
	defer end.Stop()
	for !ok() {
		select {
		case <-ticker.C:
		case <-end.C:
			tb.Fatalf("not within %v: %s", patient, what)
		}
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
	lineWarned   = "can't keep the registration in Kubernetes, trying until it is back"
	lineHealed   = "registered in Kubernetes again"
	lineReplaced = "replaced by another owner, registering again when the key is free"
	lineGone     = "the record is gone, putting it again"
	lineEdited   = "somebody has changed the record, putting it again"
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

// waitCause returns when a line with the text has named all causes.
func (l *logs) waitCause(tb testing.TB, text string, causes ...string) {
	tb.Helper()
	l.waitFor(tb, fmt.Sprintf("%q because of %q", text, causes), func() bool {
		return slices.ContainsFunc(l.all(), func(line line) bool {
			return line.text == text && !slices.ContainsFunc(causes, func(cause string) bool {
				return !strings.Contains(line.attrs, cause)
			})
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
