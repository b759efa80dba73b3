package file

import (
	"log/slog"
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
	for dir, want := range map[string]string{
		blocker:                         ": it is a file, not a directory",
		filepath.Join(blocker, "store"): "not a directory",
	} {
		_, err := Open(Config{Dir: dir})
		if err == nil || !strings.HasPrefix(err.Error(), "opening file store "+dir+": ") || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("Open(%s): %v, want it to end in %q", dir, err, want)
		}
	}
}

// TestReadingMakesNothing checks that a reader makes no directory, which its user would
// then own, and nevertheless finds records as they come.
func TestReadingMakesNothing(t *testing.T) {
	t.Parallel()
	for _, there := range []string{".", "store", filepath.Join("store", "v1")} {
		t.Run(there, func(t *testing.T) {
			t.Parallel()
			base := t.TempDir()
			if err := os.MkdirAll(filepath.Join(base, there), 0o700); err != nil {
				t.Fatal(err)
			}
			never := quick()
			never.scan = time.Hour // so that only notices show the records
			s := openWith(t, Config{Dir: filepath.Join(base, "store"), timing: never})
			next := watch(t, s)
			until(t, next, is(""))
			if expiry, err := s.Expiry(t.Context(), ep+"1"); expiry != 0 || err != nil {
				t.Errorf("Expiry: %v, %v", expiry, err)
			}
			var made []string
			if err := filepath.WalkDir(base, func(path string, _ os.DirEntry, err error) error {
				made = append(made, path)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if last := made[len(made)-1]; last != filepath.Join(base, there) {
				t.Errorf("there are %q", made)
			}
			if runtime.GOOS != "linux" {
				return // other systems find the directory with the next scan
			}
			put(t, open(t, s.dir.path), ep+"1", "x")
			until(t, next, is("1"))
		})
	}
}

// TestDefaultDirectory checks that the default directory, which anybody may have made
// first, is used only if nobody else can write to it.
func TestDefaultDirectory(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	dir := filepath.Join(temp, "dynamo_store_kv")
	log := newLogbook()
	tryOpen := func(c Config) error {
		c.Logger = slog.New(log)
		s, err := Open(c)
		if err == nil {
			err = s.Close()
		}
		return err
	}
	if err := tryOpen(Config{}); err != nil || exists(t, dir) {
		t.Errorf("Open without a directory: %v; it is there: %v", err, exists(t, dir))
	}
	s := openWith(t, Config{})
	put(t, s, ep+"1", "x")
	for _, test := range []struct {
		mode    os.FileMode
		refused bool
		warned  int
	}{{0o700, false, 0}, {0o755, false, 0}, {0o770, true, 0}, {0o757, true, 1}, {0o777 | os.ModeSticky, true, 0}} {
		if err := os.Chmod(dir, test.mode); err != nil {
			t.Fatal(err)
		}
		err := tryOpen(Config{})
		if refused := err != nil && strings.Contains(err.Error(), "other users can write there"); refused != test.refused {
			t.Errorf("Open with mode %v: %v, want refused: %v", test.mode, err, test.refused)
		}
		for _, err := range s.Watch(t.Context(), bucketName+"/") {
			if (err != nil) != test.refused {
				t.Errorf("Watch with mode %v: %v, want refused: %v", test.mode, err, test.refused)
			}
			break
		}
		if err := tryOpen(Config{Dir: dir}); err != nil {
			t.Errorf("a directory that was named, with mode %v: %v", test.mode, err)
		}
		if n := log.count("anybody can write"); n != test.warned {
			t.Errorf("%d warnings with mode %v, want %d", n, test.mode, test.warned)
		}
		log = newLogbook()
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}

	// Another user's directory is refused, unless this user is root.
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	uid, _, _ := ownerOf(info)
	for euid, ok := range map[int]bool{uid: true, uid + 1: false, 0: true} {
		if err := trusted(info, euid); (err == nil) != ok {
			t.Errorf("the directory of %d is trusted by %d: %v, want %v", uid, euid, err, ok)
		}
	}
	link := filepath.Join(temp, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if uid == 0 {
		uid = 12345 // root's links are trusted
		if err := os.Lchown(link, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	if info, err = os.Lstat(link); err != nil {
		t.Fatal(err)
	}
	for euid, ok := range map[int]bool{uid: true, uid + 1: false, 0: false} {
		if err := trustedLink(info, euid); (err == nil) != ok {
			t.Errorf("the link of %d is trusted by %d: %v, want %v", uid, euid, err, ok)
		}
	}
}

// TestRootLeavesStoreToItsOwner checks that what root makes in another user's store
// belongs to that user.
func TestRootLeavesStoreToItsOwner(t *testing.T) {
	dir, wantUID, wantGID := t.TempDir(), os.Geteuid(), os.Getegid()
	if wantUID == 0 { // only root can give the directory to another user
		wantUID, wantGID = 12345, 54321
		if err := os.Chown(dir, wantUID, wantGID); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, dir)
	put(t, s, ep+"1", "x")
	for _, path := range []string{filepath.Join(dir, "v1"), filepath.Join(dir, "v1", "instances"), recordPath(s, "1")} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if uid, gid, ok := ownerOf(info); ok && (uid != wantUID || gid != wantGID) {
			t.Errorf("%s belongs to %d:%d", path, uid, gid)
		}
	}
}

// TestLongKey checks that a name that is too long for file systems is hashed, and that
// readers find the key nevertheless.
func TestLongKey(t *testing.T) {
	s := open(t, t.TempDir())
	long := ep + strings.Repeat("ż", 300)
	lease := put(t, s, long, "x")
	put(t, s, ep+"1", "y")
	reader := open(t, s.dir.path)
	next := watch(t, reader)
	snap := until(t, next, is("1 "+strings.TrimPrefix(long, ep)))
	if string(snap.Records[1].Value) != "x" {
		t.Errorf("its value is %q", snap.Records[1].Value)
	}
	if expiry, err := reader.Expiry(t.Context(), long); err != nil || expiry <= 0 {
		t.Errorf("Expiry: %v, %v", expiry, err)
	}
	if err := lease.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, next, is("1"))

	if _, err := s.Put(t.Context(), ep+strings.Repeat("x", 16<<10), []byte("x"), 0); err == nil || !strings.Contains(err.Error(), "16384") {
		t.Errorf("a key of more than 16 KiB: %v", err)
	}
}

// TestSymlinkedBucket checks that symlinks in place of buckets are not followed.
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

// TestDirectoryReplaced checks that a watch yields the last set as stale while the store
// can't be read, and recovers.
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
	// A file in its place, unless the directory was made again just now.
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
