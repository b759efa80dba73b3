package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// readEvents passes on what the system tells of the buckets' directories. It
// ends when the notifier is closed.
func (s *Store) readEvents() {
	for {
		select {
		case event, ok := <-s.notify.Events:
			if !ok {
				return
			}
			s.handle(event)
		case err, ok := <-s.notify.Errors:
			if !ok {
				return
			}
			// As a rule there were more events than the system keeps.
			s.log.Debug("lost notice of changes, scanning", "dir", s.dir, "err", err)
			s.mu.Lock()
			for _, b := range s.buckets {
				b.changes.addAll()
				b.poke()
			}
			s.mu.Unlock()
		}
	}
}

func (s *Store) handle(event fsnotify.Event) {
	// Touching is the others, and would wake all that watch at every turn.
	if !event.Has(fsnotify.Create) && !event.Has(fsnotify.Remove) && !event.Has(fsnotify.Rename) {
		return
	}
	name := filepath.Base(event.Name)
	if strings.HasPrefix(name, tempPrefix) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.buckets {
		switch {
		case b.path == event.Name:
			b.changes.unwatch()
			b.poke()
		case b.path == filepath.Dir(event.Name):
			b.changes.add(name)
			if b.concerns(name) {
				b.poke()
			}
		}
	}
}

// concerns reports whether a change of name needs a scan now: for a watch, or as
// it is this store's own record that went.
func (b *bucket) concerns(name string) bool {
	if b.watches.Load() > 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.owned[name] != nil
}

// changes is what the system has told of a directory since the last scan.
type changes struct {
	mu      sync.Mutex  // guards what follows
	watched fs.FileInfo // the directory that is watched; nil if none is
	names   map[string]bool
	all     bool // more than names
	deaf    bool // watching failed; that has been warned about
}

// maxNames bounds what is remembered when nobody scans.
const maxNames = 10_000

func (c *changes) add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.names) >= maxNames {
		c.names, c.all = nil, true
		return
	}
	if c.names == nil {
		c.names = make(map[string]bool)
	}
	c.names[name] = true
}

func (c *changes) addAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names, c.all = nil, true
}

func (c *changes) unwatch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watched = nil
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

// takeChanges returns what has changed since it was called last, and makes sure
// that it hears of what changes from now on.
func (b *bucket) takeChanges(dir *os.Root) dirtyNames {
	c := &b.changes
	c.mu.Lock()
	defer c.mu.Unlock()
	if !b.watch(dir) || runtime.GOOS != "linux" { // the others don't tell of every replacement
		c.all = true
	}
	taken := dirtyNames{names: c.names, all: c.all}
	c.names, c.all = nil, false
	return taken
}

// watch reports whether dir has been watched all the while; if not, it is from
// now on. b.changes.mu is held.
func (b *bucket) watch(dir *os.Root) bool {
	c := &b.changes
	if b.store.notify == nil {
		return false
	}
	info, err := dir.Stat(".")
	if err == nil && c.watched != nil && os.SameFile(c.watched, info) {
		return true
	}
	c.watched = nil
	if err == nil {
		_ = b.store.notify.Remove(b.path) // of a directory that was here before
		err = b.store.notify.Add(b.path)
	}
	switch {
	case err == nil:
		c.watched, c.deaf = info, false
	case !c.deaf && !errors.Is(err, fsnotify.ErrClosed):
		c.deaf = true
		b.store.log.Warn("no notice of changes in a directory, scanning it instead", "dir", b.path, "err", err)
	}
	return false
}
