package file

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

func TestLayout(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "store")
	s := open(t, dir)
	put(t, s, ep+"4d2", `{"a":1}`)
	file := filepath.Join(dir, "v1", "instances", "dynamo%2Fbackend%2Fgenerate%2F4d2")
	content, err := os.ReadFile(file)
	if err != nil || string(content) != `{"a":1}` {
		t.Errorf("the record reads %q, %v", content, err)
	}
	if runtime.GOOS != "windows" {
		for path, want := range map[string]os.FileMode{
			dir:                                   0o700 | os.ModeDir,
			filepath.Join(dir, "v1"):              0o700 | os.ModeDir,
			filepath.Join(dir, "v1", "instances"): 0o700 | os.ModeDir,
			file:                                  0o600,
		} {
			if info, err := os.Stat(path); err != nil || info.Mode() != want {
				t.Errorf("%s has mode %v, %v, want %v", path, info.Mode(), err, want)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(left) != 0 {
		t.Errorf("Close leaves %v, %v", left, err)
	}
}

func TestOpenUnusable(t *testing.T) {
	blocker := write(t, filepath.Join(t.TempDir(), "blocker"), "x")
	dirs := []string{blocker, filepath.Join(blocker, "store")}
	if os.Getuid() > 0 { // root may write anywhere, and Windows has other rights
		sealed := t.TempDir()
		if err := os.Chmod(sealed, 0o500); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, sealed, filepath.Join(sealed, "store"))
	}
	for _, dir := range dirs {
		_, err := Open(Config{Dir: dir})
		if err == nil || !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "\n") {
			t.Errorf("Open(%s): %v, want one line that names it", dir, err)
		}
	}
}

func TestLongKey(t *testing.T) {
	s := open(t, t.TempDir())
	key := ep + strings.Repeat("x", 230)
	if _, err := s.Put(t.Context(), key, []byte("x"), 0); err == nil || !strings.Contains(err.Error(), "255") {
		t.Errorf("Put: %v, want the limit", err)
	}
}

// TestSymlinkedBucket: not even the store's own directories are followed.
func TestSymlinkedBucket(t *testing.T) {
	for _, link := range []string{"v1", filepath.Join("v1", "instances")} {
		t.Run(link, func(t *testing.T) {
			dir, outside := t.TempDir(), t.TempDir()
			victim := write(t, filepath.Join(outside, "instances", "a"), "x")
			write(t, filepath.Join(outside, "a"), "x")
			age(t, victim, time.Hour)
			if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(link)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(outside, filepath.Join(dir, link)); err != nil {
				t.Fatal(err)
			}
			s := open(t, dir)
			if _, err := s.Put(t.Context(), ep+"1", []byte("x"), 0); err == nil {
				t.Error("Put went through the link")
			}
			for _, err := range s.Watch(t.Context(), bucketName+"/") {
				if err == nil {
					t.Error("Watch went through the link")
				}
				break
			}
			for _, path := range []string{victim, filepath.Join(outside, "a")} {
				if !exists(t, path) {
					t.Errorf("%s is gone", path)
				}
			}
			if left, _ := os.ReadDir(outside); len(left) != 2 {
				t.Errorf("outside there is %v", left)
			}
		})
	}
}

// TestDirectoryReplaced: a store that can't be read leaves the last set stale,
// and heals.
func TestDirectoryReplaced(t *testing.T) {
	dir := t.TempDir()
	s, owner := open(t, dir), open(t, dir)
	put(t, owner, ep+"1", "x")
	next := watch(t, s)
	until(t, next, is("1"))
	bucket, away := filepath.Join(dir, "v1", "instances"), filepath.Join(dir, "away")
	if err := os.Rename(bucket, away); err != nil {
		t.Fatal(err)
	}
	// A file in the way, unless the directory was made again in this moment.
	for {
		f, err := os.OpenFile(bucket, os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			shut(f)
			break
		}
		if err := os.RemoveAll(bucket); err != nil {
			t.Fatal(err)
		}
	}
	snap := until(t, next, func(snap discovery.Snapshot) bool { return snap.Stale != nil })
	if !strings.Contains(snap.Stale.Error(), bucket) {
		t.Errorf("stale: %v, want %s named", snap.Stale, bucket)
	}
	if err := os.Remove(bucket); err != nil {
		t.Fatal(err)
	}
	until(t, next, is("1"))
}
