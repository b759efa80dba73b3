package file

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// A notice is what the system reports about a directory that is being watched.
type notice struct {
	dir  string
	name string // in dir; empty if dir itself was removed or moved
	lost bool   // the system dropped notices of all directories: its queue was full
}

// A notifier reports files that are created in directories or removed from them, but
// not those that change in place: renewals do that, and each would wake all who
// watch. Each platform has openNotifier, add, remove, run and Close.

// hear returns the notifier, which it makes if there is none. Processes that don't
// watch have none, because Linux grants a user 128 by default.
func (s *Store) hear() (*notifier, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.notifier != nil {
		return s.notifier, nil
	}
	n, err := openNotifier()
	if err != nil {
		return nil, err
	}
	s.notifier = n
	s.wg.Go(func() { n.run(s.heed) })
	return n, nil
}

// heed passes a notice on to all buckets.
func (s *Store) heed(n notice) {
	if isTemp(n.name) {
		return
	}
	s.mu.Lock()
	buckets := slices.Collect(maps.Values(s.buckets))
	s.mu.Unlock() // a bucket's own lock is taken before it
	for _, b := range buckets {
		b.heed(n)
	}
}

// leadsTo reports whether path is name in the directory dir, or below it.
func leadsTo(dir, name, path string) bool {
	rest, err := filepath.Rel(dir, path)
	if err != nil {
		return false
	}
	first, _, _ := strings.Cut(rest, string(filepath.Separator))
	return first == name
}

// changes collects the notices of a bucket since the last scan.
type changes struct {
	mu    sync.Mutex      // guards what follows
	path  string          // the directory watched: the bucket's or one above; empty if none is
	info  fs.FileInfo     // of that directory; nil if it is gone
	names map[string]bool // files that changed
	all   bool            // any file may have changed
}

// maxNames bounds the memory for notices between two scans; with more, the scan
// looks at every file.
const maxNames = 10_000

// heed takes a notice of any directory.
func (b *bucket) heed(n notice) {
	c := &b.changes
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case n.lost:
		c.names, c.all = nil, true
	case n.dir != c.path:
		return
	case n.name == "":
		c.info = nil
	case c.path != b.path:
		if !leadsTo(c.path, n.name, b.path) {
			return
		}
	case len(c.names) >= maxNames:
		c.names, c.all = nil, true
	default:
		if c.names == nil {
			c.names = make(map[string]bool)
		}
		c.names[n.name] = true
	}
	b.poke()
}

// addAll notes that any file may have changed.
func (c *changes) addAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names, c.all = nil, true
}

// dirtyNames are the files that may have changed since the last scan.
type dirtyNames struct {
	names map[string]bool
	all   bool
}

// untold reports whether there was no notice about the file.
func (d dirtyNames) untold(name string) bool { return !d.all && !d.names[name] }

// unchanged reports whether the file under name still has the content that was read
// from old. Records are replaced, not rewritten, so that a new one is a file of its
// own; but a file system may give it the inode number of an earlier one. Only a
// notice shows that, or the modification time, which every renewal changes too.
func (d dirtyNames) unchanged(name string, old entry, file fs.FileInfo) bool {
	if d.names[name] || !os.SameFile(old.info, file) || old.info.Size() != file.Size() {
		return false
	}
	if d.untold(name) {
		return true
	}
	// A file that was read within a tick after it was written may have been
	// replaced in the same tick.
	return old.info.ModTime().Equal(file.ModTime()) && old.read.Sub(file.ModTime()) > tick
}

// tick is the coarsest resolution of modification times, that of FAT.
const tick = 2 * time.Second

// open opens the bucket's directory, and returns nil if there is none. It asks for
// notices from now on, and returns what changed since the last call.
func (b *bucket) open() (*os.Root, dirtyNames, error) {
	c := &b.changes
	c.mu.Lock()
	defer c.mu.Unlock()
	// A directory may have been made before there were notices of it: look again.
	// No path is 10 deep.
	for range 10 {
		dir, err := b.store.dir.bucket(b.name)
		if err != nil {
			return nil, dirtyNames{}, err
		}
		heard := b.hear(dir)
		if dir == nil && !heard && c.path != "" {
			continue
		}
		if !heard || runtime.GOOS != "linux" { // other systems don't report every replacement
			c.all = true
		}
		taken := dirtyNames{names: c.names, all: c.all}
		c.names, c.all = nil, false
		return dir, taken, nil
	}
	return nil, dirtyNames{}, nil
}

// hear reports whether there have been notices of the bucket all the time since the
// last call. If not it asks for them: of dir or, if that is nil, of the nearest
// directory above it. b.changes.mu is held.
func (b *bucket) hear(dir *os.Root) bool {
	c := &b.changes
	path, info, err := b.target(dir)
	if err == nil && path == c.path && c.info != nil && os.SameFile(c.info, info) {
		return true
	}
	b.stopHearing()
	n, openErr := b.store.hear()
	if err = errors.Join(err, openErr); err == nil && n != nil && path != "" {
		if err = n.add(path); err == nil {
			c.path, c.info = path, info
		}
	}
	if err != nil && b.store.ended(context.Background()) == nil {
		b.store.deaf.Do(func() {
			b.store.log.Warn("the system gives no notice of changes in the file store, scanning it instead", "dir", b.store.dir.path, "err", err)
		})
	}
	return false
}

// target returns the directory to ask for notices of.
func (b *bucket) target(dir *os.Root) (path string, info fs.FileInfo, err error) {
	if dir != nil {
		info, err = dir.Stat(".")
		return b.path, info, err
	}
	if runtime.GOOS != "linux" {
		return "", nil, nil // other systems open every file in the directory
	}
	above := filepath.Dir(b.store.dir.path)
	for path = filepath.Dir(b.path); len(path) >= len(above); path = filepath.Dir(path) {
		if info, err = os.Stat(path); err == nil && info.IsDir() {
			return path, info, nil
		}
		if path == filepath.Dir(path) {
			break
		}
	}
	return "", nil, nil // the periodic scan will find it
}

// stopHearing stops asking for notices. b.changes.mu is held.
func (b *bucket) stopHearing() {
	c := &b.changes
	if c.path == "" {
		return
	}
	if n, err := b.store.hear(); err == nil && n != nil {
		n.remove(c.path)
	}
	c.path, c.info = "", nil
}

// unhear stops asking for notices at the end of the loop.
func (b *bucket) unhear() {
	b.changes.mu.Lock()
	defer b.changes.mu.Unlock()
	b.stopHearing()
}
