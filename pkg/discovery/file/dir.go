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

// A directory is that of a store, with its buckets: the directories of records, such
// as v1/instances. It is opened for each use, because it may be deleted and made
// again while the store is in use.
type directory struct {
	path string // absolute
	// standard says that it is the default directory, which any user of the machine
	// may have made first.
	standard bool
	log      *slog.Logger
}

// check returns an error if the directory can't be used as it is now. One that does
// not exist can.
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
		// Look at the one that was opened: the path may lead to another by now.
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

// trusted returns an error if anybody but the user euid, or root, may have written
// what is in a directory. Root trusts every user's directory.
func trusted(info fs.FileInfo, euid int) error {
	uid, _, ok := ownerOf(info)
	switch {
	case !ok:
		return nil // this system has no numbered owners
	case uid != euid && euid != 0:
		return fmt.Errorf("it belongs to another user (uid %d)", uid)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("other users can write there (mode %v)", info.Mode())
	}
	return nil
}

// trustedLink returns an error if the user euid can't trust a symlink.
func trustedLink(link fs.FileInfo, euid int) error {
	if uid, _, ok := ownerOf(link); ok && uid != euid && uid != 0 {
		return fmt.Errorf("it is a symlink of another user (uid %d)", uid)
	}
	return nil
}

// bucket opens the bucket of that name. It returns nil if there is none.
func (d *directory) bucket(name string) (*os.Root, error) {
	root, err := d.openBucket(name, false)
	if gone(err) {
		return nil, nil
	}
	return root, err
}

// makeBucket opens the bucket of that name, and makes it if there is none.
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

// giveAway hands what root has just made in another user's directory to that user,
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

// buckets returns what is in the directory under a bucket's name.
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

// sweepStrays removes the temporary files among names that are of that age: their
// makers have died.
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

// removeDead removes the file if nobody has written it since info was read. Should
// its owner renew it just then, the owner finds the record lost and puts it again.
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

// errReplaced says that there is another file under the name by now.
var errReplaced = errors.New("the file was replaced")

// readFile returns the content of the file under name that has that info. The error
// is errReplaced if there is another by now, such as a symlink's target. Content
// that is too long for a record is cut.
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

// createFile makes a file that only its user may use.
func createFile(dir *os.Root, name string) (*os.File, error) {
	return dir.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
}

// writeFirst writes the first byte of a file, which sets its modification time.
func writeFirst(f *os.File, first byte) error {
	n, err := f.WriteAt([]byte{first}, 0)
	if err == nil && n != 1 {
		return errors.New("nothing was written")
	}
	return err
}

// unchanged reports whether info and was are of the same file, and nobody wrote to it
// in between.
func unchanged(info, was fs.FileInfo) bool {
	return os.SameFile(info, was) && info.Size() == was.Size() && info.ModTime().Equal(was.ModTime())
}

// shut closes what was only read or is not needed any more, and ignores the error.
func shut(c io.Closer) { _ = c.Close() }

// gone reports whether err says that a file does not exist.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
