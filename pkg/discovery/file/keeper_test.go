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

// TestSlowScan: a scan that hangs, or after which scanning rests, keeps no record
// of the same store from being touched.
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
	go func() { // in the manner of a disk that is slow once
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

// TestOwnerOnlyTouches: whoever doesn't watch takes no notice from the system,
// which grants few to a user, and never lists a directory again and again.
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

// TestScanLeavesNoTrace: what a watch does wakes no other.
func TestScanLeavesNoTrace(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	if _, err := s.Put(t.Context(), ep+"1", []byte("x"), time.Minute); err != nil { // so that nothing is touched
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

// TestSlowFileSystem: calls end with their contexts, whatever the file system is
// at, and leave nothing behind once it is done.
func TestSlowFileSystem(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	lease := put(t, s, ep+"1", "x")
	release := make(chan struct{})
	hang := func() {
		begun := make(chan struct{})
		go func() { // as the task that hangs would be
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
	until(t, next, is("")) // what was released is
	if _, err := s.Put(t.Context(), ep+"3", []byte("x"), 0); err != nil {
		t.Error(err)
	}
	until(t, next, is("3"))
}

// TestPutTooLate: a record that was put after its call had ended is removed.
func TestPutTooLate(t *testing.T) {
	s := open(t, t.TempDir())
	l, err := s.keeper.newLease(ep+"1", []byte("x"), 0)
	if err != nil {
		t.Fatal(err)
	}
	l.state.Store(abandoned) // as the call does whose context ends meanwhile
	if err := s.keeper.put(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	if exists(t, recordPath(s, "1")) || s.keeper.keeps(bucketName, l.file) {
		t.Error("the record is there and kept")
	}
}

// TestJitter: those who try again at one time drift apart.
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

// TestManyRecords: a round of touching looks at each record once, whatever the
// directory holds beside them.
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

// TestManyOwners: the work of an owner does not grow with the number of others,
// so that many who touch three times as often as need be find the time to.
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

// TestDeadAreSwept: what short-lived processes leave behind goes by itself while
// any owner lives, though nobody watches.
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

// TestFromTheFuture: a record that some clock has stamped an hour ahead is dead,
// unless its owner lives and touches it.
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

// TestClockJumps: time that nobody could touch a file in makes nobody dead.
func TestClockJumps(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name     string
		by       time.Duration // how far the clock jumps
		touched  time.Duration // since begin, when it was still right
		at, want time.Duration // since begin, by this machine's; the age then
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

// TestUnwritable: where the clock's probe can't be written, what can be read is
// listed, as stale and with the reason, and nothing is removed.
func TestUnwritable(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := s.Put(t.Context(), ep+"1", []byte("x"), time.Hour); err != nil { // so that its store sweeps nothing
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
