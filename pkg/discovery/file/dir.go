package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// A directory is that of a store, with the buckets in it: the directories of
// records, such as v1/instances. It is opened anew each time, as it may be
// deleted and made again while the store is in use.
type directory struct {
	path string // absolute
	// standard is the default directory, at a place where every user of the
	// machine may have made one first.
	standard bool
	log      *slog.Logger
}

// check says why the directory can't be used as it is now, or returns nil. One
// that isn't there yet can be.
func (d *directory) check() error {
	info, err := os.Stat(d.path)
	switch {
	case gone(err):
		return nil
	case err != nil:
		return fmt.Errorf("the directory must be one that this user can use; choose another: %w", err)
	case !info.IsDir():
		return errors.New("it is a file, not a directory")
	}
	root, err := d.open()
	switch {
	case gone(err):
		return nil
	case err != nil:
		return err
	}
	shut(root)
	if !d.standard && info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
		d.log.Warn("anybody can write to the file store, and replace what is in it", "dir", d.path, "mode", info.Mode())
	}
	return nil
}

// open opens the directory itself.
func (d *directory) open() (*os.Root, error) {
	root, err := os.OpenRoot(d.path)
	if err != nil || !d.standard {
		return root, err
	}
	link, err := os.Lstat(d.path)
	if err == nil && link.Mode()&fs.ModeSymlink != 0 {
		err = trustedLink(link, os.Geteuid())
	}
	if err == nil {
		// The one that was opened, which another may just have put there.
		var info fs.FileInfo
		if info, err = root.Stat("."); err == nil {
			err = trusted(info, os.Geteuid())
		}
	}
	if err != nil {
		shut(root)
		return nil, fmt.Errorf("%s can't be trusted: %w; choose another", d.path, err)
	}
	return root, nil
}

// trusted says why the user euid can't take what is in a directory for the work
// of its own programs, or returns nil.
func trusted(info fs.FileInfo, euid int) error {
	uid, _, ok := ownerOf(info)
	switch {
	case !ok:
		return nil // this system has no such rights
	case uid != euid && euid != 0:
		return fmt.Errorf("it belongs to another user (uid %d)", uid)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("others than its owner can write there (mode %v)", info.Mode())
	}
	return nil
}

// trustedLink says why the user euid can't go by a symlink, or returns nil.
func trustedLink(link fs.FileInfo, euid int) error {
	if uid, _, ok := ownerOf(link); ok && uid != euid && uid != 0 {
		return fmt.Errorf("it is a symlink of another user (uid %d)", uid)
	}
	return nil
}

// bucket opens the directory of that name. If it isn't there, it returns nil.
func (d *directory) bucket(name string) (*os.Root, error) {
	root, err := d.openBucket(name, false)
	if gone(err) {
		return nil, nil
	}
	return root, err
}

// makeBucket opens the directory of that name, which it makes if it isn't there.
func (d *directory) makeBucket(name string) (*os.Root, error) {
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, err
	}
	return d.openBucket(name, true)
}

func (d *directory) openBucket(name string, create bool) (*os.Root, error) {
	root, err := d.open()
	if err != nil {
		return nil, err
	}
	defer shut(root)
	for _, name := range []string{path.Dir(name), name} {
		info, err := root.Lstat(name)
		if gone(err) && create {
			if err := d.mkdir(root, name); err != nil {
				return nil, err
			}
			info, err = root.Lstat(name)
		}
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			return nil, fmt.Errorf("%s in %s is not a directory, and symlinks are not followed", name, d.path)
		}
	}
	return root.OpenRoot(name)
}

func (d *directory) mkdir(root *os.Root, name string) error {
	err := root.Mkdir(name, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return d.giveAway(root, name)
}

// giveAway makes what root has just made in another user's store that user's,
// who could not use it otherwise.
func (d *directory) giveAway(root *os.Root, name string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(d.path)
	if err != nil {
		return err
	}
	uid, gid, ok := ownerOf(info)
	if !ok || uid == 0 {
		return nil
	}
	return root.Lchown(name, uid, gid)
}

// join returns the absolute path of a bucket, in the system's form.
func (d *directory) join(bucket string) string {
	return filepath.Join(d.path, filepath.FromSlash(bucket))
}

// buckets returns the names that buckets would have and something has.
func (d *directory) buckets() ([]string, error) {
	root, err := d.open()
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer shut(root)
	names, err := fs.Glob(root.FS(), "*/*")
	return slices.DeleteFunc(names, func(name string) bool { return discovery.CheckPrefix(name+"/") != nil }), err
}

// sweepStrays removes the temporary files among names that their makers have
// left behind.
func (d *directory) sweepStrays(dir *os.Root, names []string, now moment, age time.Duration) {
	for _, name := range names {
		if !isTemp(name) {
			continue
		}
		info, err := dir.Lstat(name)
		if err != nil || !info.Mode().IsRegular() || now.since(info.ModTime()) < age {
			continue
		}
		if err := dir.Remove(name); err == nil {
			d.log.Debug("removed a temporary file left behind", "dir", dir.Name(), "file", name)
		}
	}
}

// removeDead removes the file if it is still as info says. Its owner may come
// back to life between the two: then it misses the record and puts it again.
func removeDead(dir *os.Root, name string, info fs.FileInfo) error {
	now, err := dir.Lstat(name)
	if gone(err) || err == nil && !unchanged(now, info) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := dir.Remove(name); !gone(err) {
		return err
	}
	return nil
}

// readNames returns the names in dir, in no order.
func readNames(dir *os.Root) ([]string, error) {
	f, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer shut(f)
	return f.Readdirnames(-1)
}

// errReplaced says that a name has been given to another file.
var errReplaced = errors.New("the file was replaced")

// readFile returns the content of the file under name that has that info. If
// there is another by now, a symlink's target for one, the error is errReplaced.
// What is longer than a record can be is cut.
func readFile(dir *os.Root, name string, info fs.FileInfo) ([]byte, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer shut(f)
	opened, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !os.SameFile(opened, info) {
		return nil, errReplaced
	}
	content := bytes.NewBuffer(make([]byte, 0, min(info.Size(), maxFile)+bytes.MinRead))
	_, err = content.ReadFrom(io.LimitReader(f, maxFile+1))
	return content.Bytes(), err
}

// createFile makes a file that its user alone may use.
func createFile(dir *os.Root, name string) (*os.File, error) {
	return dir.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
}

func writeFirst(f *os.File, first byte) error {
	n, err := f.WriteAt([]byte{first}, 0)
	if err == nil && n != 1 {
		return errors.New("nothing was written")
	}
	return err
}

// unchanged reports whether a file is the one that it was, and nobody has written
// to it since.
func unchanged(info, was fs.FileInfo) bool {
	return os.SameFile(info, was) && info.Size() == was.Size() && info.ModTime().Equal(was.ModTime())
}

// shut closes what was only read, or is of no use any more.
func shut(c io.Closer) { _ = c.Close() }

// gone reports whether err says that a file isn't there.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
