package file

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// TestStrangers checks that records work whatever else is in the directory, and that
// everything else is left alone.
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

	// Of those that are old, only regular files with a record's name are removed.
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

// TestReplacedByStranger checks that a key belongs to the owner that has replaced the
// record, in whatever way, for as long as that owner keeps it alive.
func TestReplacedByStranger(t *testing.T) {
	t.Parallel()
	log := newLogbook()
	s := openWith(t, Config{Dir: t.TempDir(), Logger: slog.New(log), timing: quick()})
	moved, edited := put(t, s, ep+"1", "ours"), put(t, s, ep+"2", "ours")
	next := watch(t, open(t, s.dir.path))
	until(t, next, is("1 2"))
	if err := os.Rename(write(t, filepath.Join(s.dir.path, "new"), "else"), recordPath(s, "1")); err != nil {
		t.Fatal(err)
	}
	write(t, recordPath(s, "2"), "else")
	values := func(want string) func(discovery.Snapshot) bool {
		return func(snap discovery.Snapshot) bool {
			return len(snap.Records) == 2 && string(snap.Records[0].Value) == want && string(snap.Records[1].Value) == want
		}
	}
	until(t, next, values("ours")) // nobody renews the other one
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
	if exists(t, recordPath(s, "2")) {
		t.Error("the record is still there")
	}
}

// TestChangedByHand checks that an owner writes its record again, and warns once, after
// somebody has restored, edited or cut it.
func TestChangedByHand(t *testing.T) {
	t.Parallel()
	const ours = `{"incarnation":"4d2","name":"server1"}`
	log := newLogbook()
	s := openWith(t, Config{Dir: t.TempDir(), Logger: slog.New(log), timing: quick()})
	put(t, s, ep+"1", ours)
	path := recordPath(s, "1")
	for i, change := range []func() error{
		func() error { return os.Truncate(path, 0) },
		func() error { return os.Truncate(path, 20) },
		func() error { return os.WriteFile(path, []byte(strings.Replace(ours, "1\"", "2\"", 1)), 0o600) }, // of the same length
		func() error {
			edited := write(t, filepath.Join(s.dir.path, "v1", "edited"), strings.Replace(ours, "server1", "", 1))
			return os.Rename(edited, path) // like sed -i
		},
		func() error {
			older := write(t, filepath.Join(s.dir.path, "v1", "older"), strings.Replace(ours, "server1", "old", 1))
			age(t, older, time.Hour)
			return os.Rename(older, path) // like cp -a
		},
	} {
		before, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the record is as it was", func() bool {
			content, err := os.ReadFile(path)
			after, statErr := os.Stat(path)
			return err == nil && statErr == nil && string(content) == ours && after.ModTime().After(before.ModTime())
		})
		eventually(t, "the log says so", func() bool { return log.count("somebody has changed a record") > i })
		if n := log.count(""); n != i+1 {
			t.Errorf("%d warnings after %d changes:\n%s", n, i+1, log)
		}
	}
}

// TestCutWhileTouched checks that damage done between the look at a record and its
// renewal does not pass for the owner's own writing.
func TestCutWhileTouched(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	l := put(t, s, ep+"1", `{"incarnation":"4d2"}`).(*lease)
	if err := s.keeper.do(t.Context(), func() {
		dir, err := s.dir.bucket(bucketName)
		if err != nil {
			t.Error(err)
			return
		}
		defer shut(dir)
		looked, err := dir.Lstat(l.file)
		if err == nil {
			err = os.Truncate(recordPath(s, "1"), 0)
		}
		if err != nil {
			t.Error(err)
		}
		if err := l.touch(dir, looked); !errors.Is(err, errReplaced) {
			t.Errorf("touching: %v, want %v", err, errReplaced)
		}
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the record is whole again", func() bool {
		content, err := os.ReadFile(recordPath(s, "1"))
		return err == nil && string(content) == string(l.value)
	})
}

// TestFilesOfTheSystem checks that files that systems and programs leave in any directory
// are logged once, at debug level.
func TestFilesOfTheSystem(t *testing.T) {
	log := newLogbook()
	log.level = slog.LevelDebug
	s := openWith(t, Config{Dir: t.TempDir(), Logger: slog.New(log), timing: quick()})
	names := []string{".nfs000000001", ".DS_Store", "lost+found", "Thumbs.db"}
	for _, name := range names {
		write(t, filepath.Join(s.dir.path, "v1", "instances", name), "x")
	}
	for range 3 {
		if got := keys(t, s); got != "" {
			t.Errorf("there is %q", got)
		}
	}
	for _, name := range names {
		if n := log.count("DEBUG skipping a file that is no record", "file="+name+" "); n != 1 {
			t.Errorf("%s is told of %d times", name, n)
		}
	}
	if n := log.count("WARN"); n != 0 {
		t.Errorf("%d warnings:\n%s", n, log)
	}
}

// TestNoNotice checks that there is one warning if the system gives no notice.
func TestNoNotice(t *testing.T) {
	log := newLogbook()
	s := openWith(t, Config{Dir: t.TempDir(), Logger: slog.New(log), timing: quick()})
	if n, err := s.hear(); err == nil {
		shut(n) // so that add fails
	}
	put(t, s, ep+"1", "x")
	next := watch(t, s)
	until(t, next, is("1"))
	for _, err := range s.Watch(t.Context(), "v1/down/") {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	put(t, s, ep+"2", "x")
	until(t, next, is("1 2"))
	if n := log.count("no notice of changes", "dir="+s.dir.path+" "); n != 1 {
		t.Errorf("%d warnings, want 1:\n%s", n, log)
	}
}
