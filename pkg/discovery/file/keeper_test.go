package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/request-migration/migrate/pkg/discovery"
)

// TestSlowScan checks that a scan that hangs, and the pause after it, don't delay the
// renewals of the same store.
func TestSlowScan(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	put(t, s, ep+"1", "x")
	other := open(t, s.dir.path)
	next := watch(t, other)
	until(t, next, is("1"))
	b, err := s.watched(bucketName)
	if err != nil {
		t.Fatal(err)
	}
	defer b.leave()
	b.scanMu.Lock()
	ended := make(chan struct{})
	go func() { // like a disk that is slow once
		defer close(ended)
		<-time.After(2 * quick().dead)
		b.scanMu.Unlock()
	}()
	b.poke()
	t.Cleanup(func() { <-ended })
	ctx, cancel := context.WithTimeout(t.Context(), 4*quick().dead)
	defer cancel()
	for snap, err := range other.Watch(ctx, bucketName+"/") {
		if err == nil && !is("1")(snap) {
			t.Errorf("the set became %q", keysOf(snap))
		}
	}
}

// TestOwnerOnlyTouches checks that an owner that doesn't watch has no notifier, of which
// the system grants few to a user, and does not keep listing a directory.
func TestOwnerOnlyTouches(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	put(t, s, ep+"1", "x")
	started, err := os.Stat(recordPath(s, "1"))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the record is touched", func() bool {
		info, err := os.Stat(recordPath(s, "1"))
		return err == nil && info.ModTime().After(started.ModTime())
	})
	s.mu.Lock()
	if s.notifier != nil || len(s.buckets) > 0 {
		t.Errorf("an owner has a notifier (%v) and scans %d directories", s.notifier != nil, len(s.buckets))
	}
	s.mu.Unlock()
	next := watch(t, s)
	until(t, next, is("1"))
}

// TestScanLeavesNoTrace checks that a scan by one watch wakes no other.
func TestScanLeavesNoTrace(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	if _, err := s.Put(t.Context(), ep+"1", []byte("x"), time.Minute); err != nil { // so that nobody renews it
		t.Fatal(err)
	}
	ear, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer shut(ear)
	if err := ear.Add(s.dir.join(bucketName)); err != nil {
		t.Fatal(err)
	}
	until(t, watch(t, s), is("1"))
	scans := time.NewTimer(6 * quick().scan)
	defer scans.Stop()
	select {
	case event := <-ear.Events:
		t.Errorf("scanning makes for %v", event)
	case <-scans.C:
	}
}

// TestSlowFileSystem checks that calls end with their contexts although the file system
// hangs, and leave nothing behind once it goes on.
func TestSlowFileSystem(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	lease := put(t, s, ep+"1", "x")
	release := make(chan struct{})
	hang := func() {
		begun := make(chan struct{})
		go func() { // a task that hangs
			_ = s.keeper.do(context.Background(), func() { close(begun); <-release })
		}()
		<-begun
	}
	hang()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Put(ctx, ep+"2", []byte("x"), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Put: %v, want its context's error", err)
	}
	if err := lease.Release(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Release: %v, want its context's error", err)
	}
	close(release)
	next := watch(t, s)
	until(t, next, is("")) // the release was done
	if _, err := s.Put(t.Context(), ep+"3", []byte("x"), 0); err != nil {
		t.Error(err)
	}
	until(t, next, is("3"))
}

// TestPutTooLate checks that a record is removed that was put after Put had returned.
func TestPutTooLate(t *testing.T) {
	s := open(t, t.TempDir())
	l, err := s.keeper.newLease(ep+"1", []byte("x"), 0)
	if err != nil {
		t.Fatal(err)
	}
	l.state.Store(abandoned) // as Put does when its context ends meanwhile
	if err := s.keeper.put(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	if exists(t, recordPath(s, "1")) || s.keeper.keeps(bucketName, l.file) {
		t.Error("the record is there and kept")
	}
}

// TestJitter checks that processes that failed together retry at different times.
func TestJitter(t *testing.T) {
	least, most := time.Hour, time.Duration(0)
	for range 1000 {
		d := jitter(time.Second)
		least, most = min(least, d), max(most, d)
	}
	if least < time.Second/2 || most > time.Second || most-least < time.Second/4 {
		t.Errorf("a second becomes %v to %v", least, most)
	}
}

// TestManyRecords checks that a round looks at each of the store's records once, and at
// no others.
func TestManyRecords(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	const n = 1000
	for i := range n {
		put(t, s, fmt.Sprintf("%s%04d", ep, i), "x")
	}
	reader := open(t, s.dir.path)
	ctx, cancel := context.WithTimeout(t.Context(), 3*quick().dead)
	defer cancel()
	for snap, err := range reader.Watch(ctx, bucketName+"/") {
		if err == nil && len(snap.Records) != n {
			t.Errorf("there are %d of %d records", len(snap.Records), n)
		}
	}
}

// TestManyOwners checks that an owner's work does not grow with the number of others, so
// that many owners renew in time.
func TestManyOwners(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	often := standardTiming()
	often.touch /= 3
	const n = 300
	for i := range n {
		put(t, openWith(t, Config{Dir: dir, timing: often}), fmt.Sprintf("%s%04d", ep, i), "x")
	}
	reader := openWith(t, Config{Dir: dir, timing: often})
	ctx, cancel := context.WithTimeout(t.Context(), often.dead*3/2)
	defer cancel()
	for snap, err := range reader.Watch(ctx, bucketName+"/") {
		if err == nil && len(snap.Records) != n {
			t.Errorf("there are %d of %d records", len(snap.Records), n)
		}
	}
}

// TestDeadAreSwept checks that any living owner removes what short-lived processes leave
// behind, although nobody watches.
func TestDeadAreSwept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	crashed := open(t, dir)
	put(t, crashed, ep+"dead", "x")
	crashed.closing.Do(func() { crashed.closeErr = crashed.close(false) })
	age(t, recordPath(crashed, "dead"), time.Minute)
	live := open(t, dir)
	put(t, live, ep+"live", "x")
	reporter := open(t, dir)
	const reports = "v1/down/dynamo/backend/generate/1/"
	for i := range 100 {
		if _, err := reporter.Put(t.Context(), fmt.Sprint(reports, i), []byte("x"), 10*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := reporter.Put(t.Context(), reports+"long", []byte("x"), time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := reporter.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "only the living are left", func() bool {
		left, err := filepath.Glob(filepath.Join(dir, "v1", "*", "*"))
		return err == nil && len(left) == 2
	})
	if !exists(t, filepath.Join(live.dir.join("v1/down"), fileName("dynamo/backend/generate/1/long"))) || !exists(t, recordPath(live, "live")) {
		t.Error("the wrong ones were removed")
	}
}

// TestFromTheFuture checks that a record stamped an hour ahead is dead, unless its owner
// lives and renews it.
func TestFromTheFuture(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	put(t, s, ep+"live", "x")
	write(t, recordPath(s, "dead"), "x")
	if _, err := s.Put(t.Context(), ep+"brief", []byte("x"), time.Hour); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"live", "dead", "brief"} {
		age(t, recordPath(s, id), -time.Hour)
	}
	reader := open(t, s.dir.path)
	next := watch(t, reader)
	until(t, next, is("live"))
	for _, id := range []string{"dead", "brief"} {
		if exists(t, recordPath(s, id)) {
			t.Errorf("the file of %s is still there", id)
		}
	}
}

// TestClockJumps checks that no record dies of time in which nobody could renew it.
func TestClockJumps(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name     string
		by       time.Duration // how far the clock jumps
		touched  time.Duration // when the file was touched, before the jump
		at, want time.Duration // a time by this machine's clock, and the age then
	}{
		{"forward", time.Hour, -2 * time.Second, time.Second, 3 * time.Second},
		{"forward, and not touched since", time.Hour, -2 * time.Second, 9 * time.Second, 11 * time.Second},
		{"forward, long ago", time.Hour, -2 * time.Second, 12 * time.Second, time.Hour + 14*time.Second},
		{"back", -time.Hour, -2 * time.Second, time.Second, 3 * time.Second},
		{"back, long ago", -time.Hour, -2 * time.Second, 12 * time.Second, -time.Hour + 14*time.Second},
		{"a little", 3 * time.Second, -2 * time.Second, time.Second, 6 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &clock{timing: standardTiming()}
			c.observe(reading{clock: begin, machine: begin})
			var now moment
			for at := time.Second; at <= test.at; at += time.Second {
				now = c.observe(reading{clock: begin.Add(at + test.by), machine: begin.Add(at)})
			}
			if got := now.since(begin.Add(test.touched)); got != test.want {
				t.Errorf("the age is %v, want %v", got, test.want)
			}
			if got := now.since(now.time.Add(-time.Second)); test.at > 2*time.Second && got != time.Second {
				t.Errorf("the age of what was touched since is %v, want 1 s", got)
			}
		})
	}
}

// TestUnwritable checks that a watch lists what can be read if the clock's probe can't be
// written: as stale, with the reason, and without removing anything.
func TestUnwritable(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := s.Put(t.Context(), ep+"1", []byte("x"), time.Hour); err != nil { // with a ttl, so that its store sweeps nothing
		t.Fatal(err)
	}
	dead := write(t, recordPath(s, "2"), "x")
	age(t, dead, time.Minute)
	log := newLogbook()
	reader := openWith(t, Config{Dir: dir, Logger: slog.New(log), timing: quick()})
	full := true
	reader.clock.create = func(root *os.Root, name string) (*os.File, error) {
		if full {
			return nil, &fs.PathError{Op: "open", Path: name, Err: errFull}
		}
		return createFile(root, name)
	}
	sets := 0
	ctx, cancel := context.WithTimeout(t.Context(), 6*quick().scan)
	defer cancel()
	for _, err := range reader.Watch(ctx, bucketName+"/") {
		if err == nil {
			sets++
		}
	}
	if sets != 1 {
		t.Errorf("the same trouble makes for %d sets", sets)
	}
	next := watch(t, reader)
	snap := until(t, next, func(discovery.Snapshot) bool { return true })
	if keysOf(snap) != "1" || !errors.Is(snap.Stale, errFull) || !strings.Contains(snap.Stale.Error(), bucketName) {
		t.Errorf("there is %q, stale: %v", keysOf(snap), snap.Stale)
	}
	if !exists(t, dead) {
		t.Error("a record was removed by this machine's clock")
	}
	if expiry, err := reader.Expiry(t.Context(), ep+"1"); err != nil || expiry <= 0 {
		t.Errorf("Expiry: %v, %v", expiry, err)
	}
	reader.clock.mu.Lock()
	full = false
	reader.clock.mu.Unlock()
	until(t, next, is("1"))
	if n := log.count("skipping"); n != 0 {
		t.Errorf("%d warnings:\n%s", n, log)
	}
}

var errFull = errors.New("no space left on device")
