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

// A notice is what the system tells of a directory that it was asked about.
type notice struct {
	dir  string
	name string // in dir; empty if dir itself is gone or moved
	lost bool   // there were more notices than the system keeps; of all directories
}

// A notifier tells of files that come to directories and leave them, but not of
// those that change in place: touching is that, and would wake all that watch at
// every turn. Its platforms have openNotifier, add, remove and Close.

// hear returns the notifier, which it makes if there is none. Processes that
// don't watch have none: systems grant few to a user.
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

// heed passes a notice on to the buckets that it concerns.
func (s *Store) heed(n notice) {
	if isTemp(n.name) {
		return
	}
	s.mu.Lock()
	buckets := slices.Collect(maps.Values(s.buckets))
	s.mu.Unlock() // a bucket's own lock comes before it
	for _, b := range buckets {
		b.heed(n)
	}
}

// leadsTo reports whether name in the directory dir is on the way to path.
func leadsTo(dir, name, path string) bool {
	rest, err := filepath.Rel(dir, path)
	if err != nil {
		return false
	}
	first, _, _ := strings.Cut(rest, string(filepath.Separator))
	return first == name
}

// changes is what the system has told of a directory since the last scan.
type changes struct {
	mu    sync.Mutex  // guards what follows
	path  string      // that notices are asked of: the bucket's, or one above; empty if none are
	info  fs.FileInfo // of what path was; nil if it is gone
	names map[string]bool
	all   bool // more than names
}

// maxNames bounds what is remembered between two scans.
const maxNames = 10_000

// heed takes a notice, of whichever directory.
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

func (c *changes) addAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names, c.all = nil, true
}

// dirtyNames says which files may not be what the last scan saw.
type dirtyNames struct {
	names map[string]bool
	all   bool
}

// untold reports whether there was no notice of a change of name.
func (d dirtyNames) untold(name string) bool { return !d.all && !d.names[name] }

// unchanged reports whether the file under name has the content that was read
// when it was old. Files are not rewritten but replaced, which gives the name
// another file: one with another number, or later on with the number of one that
// was there before. Only notice of the change tells then, or the time of change,
// which tells too much, as touching sets it.
func (d dirtyNames) unchanged(name string, old entry, file fs.FileInfo) bool {
	if d.names[name] || !os.SameFile(old.info, file) || old.info.Size() != file.Size() {
		return false
	}
	if d.untold(name) {
		return true
	}
	// A file that was read right after it was changed may have been replaced
	// since within one tick of a coarse clock.
	return old.info.ModTime().Equal(file.ModTime()) && old.read.Sub(file.ModTime()) > tick
}

// tick is the coarsest clock by which file systems stamp files, FAT's.
const tick = 2 * time.Second

// open opens the bucket's directory, nil if it isn't there. It makes sure that
// the store hears of what changes from now on, and returns what has changed
// since it was called last.
func (b *bucket) open() (*os.Root, dirtyNames, error) {
	c := &b.changes
	c.mu.Lock()
	defer c.mu.Unlock()
	// What isn't there may come while nobody listens yet: look again then. No
	// path is that deep.
	for range 10 {
		dir, err := b.store.dir.bucket(b.name)
		if err != nil {
			return nil, dirtyNames{}, err
		}
		heard := b.hear(dir)
		if dir == nil && !heard && c.path != "" {
			continue
		}
		if !heard || runtime.GOOS != "linux" { // the others don't tell of every replacement
			c.all = true
		}
		taken := dirtyNames{names: c.names, all: c.all}
		c.names, c.all = nil, false
		return dir, taken, nil
	}
	return nil, dirtyNames{}, nil
}

// hear reports whether there have been notices all the while of what may change
// in the bucket; if not, there are from now on, if they can be had. They are of
// dir, or if that isn't there of the nearest directory above it that is.
// b.changes.mu is held.
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
			b.store.log.Warn("no notice of changes in the file store, scanning it instead", "dir", b.store.dir.path, "err", err)
		})
	}
	return false
}

// target returns what notices are to be asked of.
func (b *bucket) target(dir *os.Root) (path string, info fs.FileInfo, err error) {
	if dir != nil {
		info, err = dir.Stat(".")
		return b.path, info, err
	}
	if runtime.GOOS != "linux" {
		return "", nil, nil // the others open each file that lies there
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
	return "", nil, nil // scanning will find it
}

// stopHearing ends the notices. b.changes.mu is held.
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

// unhear ends the notices as the loop ends.
func (b *bucket) unhear() {
	b.changes.mu.Lock()
	defer b.changes.mu.Unlock()
	b.stopHearing()
}
