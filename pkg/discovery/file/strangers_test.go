package file

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// TestStrangers: whatever else lies about in the directory, what is ours works,
// and theirs is left alone.
func TestStrangers(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	bucket := filepath.Join(dir, "v1", "instances")
	secret := write(t, filepath.Join(outside, "secret"), "secret")
	strangers := []string{
		write(t, filepath.Join(bucket, "a%2F..%2F..%2Fetc"), "x"),
		write(t, filepath.Join(bucket, "%2E%2E%2Fsecret"), "x"),
		write(t, filepath.Join(bucket, "notes.txt"), "x"),
		write(t, filepath.Join(bucket, "large%2Fa"), strings.Repeat("x", 2<<20)),
		write(t, filepath.Join(bucket, "empty%2Fa"), ""),
		filepath.Join(bucket, "link%2Fa"),
		filepath.Join(bucket, "inner%2Fa"),
		filepath.Join(bucket, "dirlink%2Fa"),
		filepath.Join(bucket, "dir%2Fa"),
	}
	for link, target := range map[string]string{"link%2Fa": secret, "inner%2Fa": "notes.txt", "dirlink%2Fa": outside} {
		if err := os.Symlink(target, filepath.Join(bucket, link)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(bucket, "dir%2Fa", "inside"), "x")
	theirs := write(t, filepath.Join(bucket, "theirs%2Fa"), "not JSON, which is not our business")

	log := newLogbook()
	s := openWith(t, Config{Dir: dir, Logger: slog.New(log), timing: quick()})
	want := "1 2 v1/instances/theirs/a"
	put(t, s, ep+"1", "x")
	put(t, s, ep+"2", "x")
	for range 3 {
		if got := keys(t, s); got != want {
			t.Fatalf("there is %q, want %q", got, want)
		}
	}
	for _, path := range strangers {
		if n := log.count("file=" + filepath.Base(path) + " "); n != 1 {
			t.Errorf("%d warnings about %s, want 1", n, filepath.Base(path))
		}
	}
	if n := log.count(""); n != len(strangers) {
		t.Errorf("%d warnings, want %d:\n%s", n, len(strangers), log)
	}

	// As they grow old only what has a record's name and is a file goes.
	for _, path := range slices.Concat(strangers[:5], []string{theirs, secret}) {
		age(t, path, time.Hour)
	}
	if got := keys(t, s); got != "1 2" {
		t.Errorf("there is %q, want %q", got, "1 2")
	}
	for _, path := range slices.Concat(strangers[:3], strangers[5:], []string{secret, filepath.Join(bucket, "dir%2Fa", "inside")}) {
		if !exists(t, path) {
			t.Errorf("%s is gone", path)
		}
	}
	for _, path := range []string{theirs, strangers[3], strangers[4]} {
		if exists(t, path) {
			t.Errorf("%s is still there", path)
		}
	}
}

func TestUnreadableFile(t *testing.T) {
	if os.Getuid() <= 0 {
		t.Skip("root reads everything, and Windows has other rights")
	}
	log := newLogbook()
	s := openWith(t, Config{Dir: t.TempDir(), Logger: slog.New(log), timing: quick()})
	put(t, s, ep+"1", "x")
	sealed := write(t, recordPath(s, "2"), "x")
	if err := os.Chmod(sealed, 0); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got := keys(t, s); got != "1" {
			t.Errorf("there is %q, want 1", got)
		}
	}
	if n := log.count(filepath.Base(sealed)); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
}

// TestReplacedByStranger: a record that another has put in place of ours is
// theirs, in whatever way they did.
func TestReplacedByStranger(t *testing.T) {
	t.Parallel()
	log := newLogbook()
	s := openWith(t, Config{Dir: t.TempDir(), Logger: slog.New(log), timing: quick()})
	moved, edited := put(t, s, ep+"1", "ours"), put(t, s, ep+"2", "ours")
	next := watch(t, s)
	until(t, next, is("1 2"))
	if err := os.Rename(write(t, filepath.Join(s.dir, "new"), "else"), recordPath(s, "1")); err != nil {
		t.Fatal(err)
	}
	write(t, recordPath(s, "2"), "else")
	// Nobody touches them any more.
	until(t, next, is(""))
	if n := log.count("another owner"); n != 2 {
		t.Errorf("%d warnings, want 2:\n%s", n, log)
	}
	write(t, recordPath(s, "1"), "else")
	for _, lease := range []discovery.Lease{moved, edited} {
		if err := lease.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if !exists(t, recordPath(s, "1")) {
		t.Error("the other owner's record was released")
	}
}
