package file

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestAge checks ages with the standard timing. The file system's clock is this
// machine's here; a test on one machine can't tell them apart.
func TestAge(t *testing.T) {
	s := openWith(t, Config{Dir: t.TempDir()})
	bucket := filepath.Join(s.dir.path, "v1", "instances")
	young, old := write(t, recordPath(s, "1"), "x"), write(t, recordPath(s, "2"), "x")
	half, stray := write(t, filepath.Join(bucket, ".tmp_1"), "x"), write(t, filepath.Join(bucket, ".tmp_2"), "x")
	age(t, young, 9*time.Second)
	// The file system's clock may be a tick behind this machine's.
	age(t, old, 10*time.Second+100*time.Millisecond)
	age(t, half, 50*time.Second)
	age(t, stray, time.Minute+100*time.Millisecond)
	if got := keys(t, s); got != "1" {
		t.Errorf("there is %q, want 1", got)
	}
	for path, want := range map[string]bool{young: true, old: false, half: true, stray: false} {
		if got := exists(t, path); got != want {
			t.Errorf("%s is there: %v, want %v", filepath.Base(path), got, want)
		}
	}
	timing := standardTiming()
	if timing.isDead(10*time.Second-1, 0) || !timing.isDead(10*time.Second, 0) {
		t.Error("a record is not dead from 10 s on")
	}
	if timing.isDead(-10*time.Second, 0) || !timing.isDead(-10*time.Second-1, 0) {
		t.Error("a record is not dead when it is more than 10 s ahead")
	}
	if timing.dead != 10*time.Second || timing.touch != 3*time.Second || timing.dead+timing.scan > 13*time.Second {
		t.Errorf("timing is %+v", timing)
	}
}

// TestDeathIsTimely checks that a watch yields a death before the next periodic scan.
func TestDeathIsTimely(t *testing.T) {
	t.Parallel()
	never := timing{dead: 10 * time.Second, touch: time.Hour, scan: time.Hour, stray: time.Hour, sweep: time.Hour}
	s := openWith(t, Config{Dir: t.TempDir(), timing: never})
	write(t, recordPath(s, "1"), "x")
	dying := write(t, recordPath(s, "2"), "x")
	age(t, dying, 9500*time.Millisecond)
	next := watch(t, s)
	began := time.Now()
	until(t, next, is("1 2"))
	until(t, next, is("1"))
	if took := time.Since(began); took < 400*time.Millisecond {
		t.Errorf("it was gone %v later, want half a second", took)
	}
	if exists(t, dying) {
		t.Error("its file is still there")
	}
}

// TestTTLIsInTheFile checks that every reader knows a record's ttl.
func TestTTLIsInTheFile(t *testing.T) {
	s, reader := openWith(t, Config{Dir: t.TempDir()}), (*Store)(nil)
	for id, ttl := range map[string]time.Duration{"1": 5 * time.Second, "2": time.Minute} {
		if _, err := s.Put(t.Context(), ep+id, []byte("x"), ttl); err != nil {
			t.Fatal(err)
		}
		reader = openWith(t, Config{Dir: s.dir.path})
		if expiry, err := reader.Expiry(t.Context(), ep+id); err != nil || expiry > ttl || expiry < ttl-time.Second {
			t.Errorf("a record with a ttl of %v ends in %v, %v", ttl, expiry, err)
		}
	}
	if got := keys(t, reader); got != "1 2" {
		t.Errorf("there is %q, want 1 and 2", got)
	}
	age(t, recordPath(s, "1"), 5*time.Second+100*time.Millisecond)
	age(t, recordPath(s, "2"), 59*time.Second)
	if got := keys(t, reader); got != "2" {
		t.Errorf("there is %q, want 2", got)
	}
}

// TestClock checks that the clock shows the time with which a file is stamped now.
func TestClock(t *testing.T) {
	s := open(t, t.TempDir())
	var last time.Time
	for range 3 {
		now, err := s.clock.now()
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(write(t, recordPath(s, "1"), "x"))
		if err != nil {
			t.Fatal(err)
		}
		if d := info.ModTime().Sub(now.time); d < 0 || d > time.Second || now.time.Before(last) {
			t.Errorf("the time was %v, a file written next is of %v later", now.time, d)
		}
		last = now.time
	}
	left, err := os.ReadDir(s.dir.path)
	if err != nil || len(left) != 1 { // v1
		t.Errorf("the clock leaves %v, %v", left, err)
	}
}

// TestTouchWakesNobody checks that renewals wake no watch.
func TestTouchWakesNobody(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, owner := open(t, dir), open(t, dir)
	put(t, owner, ep+"1", "x")
	ctx, cancel := context.WithTimeout(t.Context(), 6*quick().touch)
	defer cancel()
	sets := 0
	for _, err := range s.Watch(ctx, bucketName+"/") {
		if err == nil {
			sets++
		}
	}
	if sets != 1 {
		t.Errorf("%d sets, want the first alone", sets)
	}
	if info, err := os.Stat(recordPath(s, "1")); err != nil || time.Since(info.ModTime()) > 4*quick().touch {
		t.Errorf("the record is of %v, %v: nobody touched it", info.ModTime(), err)
	}
}

// removeAll tries until it is quicker than the owners, who make the directory again.
func removeAll(dir string) (err error) {
	for range 100 {
		if err = os.RemoveAll(dir); err == nil {
			break
		}
	}
	return err
}

// TestLostRecordReturns checks that an owner writes its record again after it was swept
// or deleted, and warns once.
func TestLostRecordReturns(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		remove func(s *Store) error
	}{
		{"file", func(s *Store) error { return os.Remove(recordPath(s, "1")) }},
		{"bucket", func(s *Store) error { return removeAll(filepath.Join(s.dir.path, "v1", "instances")) }},
		{"directory", func(s *Store) error { return removeAll(s.dir.path) }},
		{"moved", func(s *Store) error { return os.Rename(s.dir.path, s.dir.path+".old") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			log := newLogbook()
			dir := filepath.Join(t.TempDir(), "store")
			s := open(t, dir)
			owner := openWith(t, Config{Dir: dir, Logger: slog.New(log), timing: quick()})
			lease := put(t, owner, ep+"1", "x")
			next := watch(t, s)
			until(t, next, is("1"))
			before, err := os.Stat(recordPath(s, "1"))
			if err != nil {
				t.Fatal(err)
			}
			if err := test.remove(owner); err != nil {
				t.Fatal(err)
			}
			// The watch may have missed that it was gone.
			eventually(t, "the record has returned", func() bool {
				after, err := os.Stat(recordPath(s, "1"))
				return err == nil && after.ModTime().After(before.ModTime())
			})
			if got := keys(t, s); got != "1" {
				t.Errorf("there is %q, want 1", got)
			}
			if n := log.count("lost"); n > 1 {
				t.Errorf("%d warnings:\n%s", n, log)
			}
			if err := lease.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
			until(t, next, is(""))
		})
	}
}
