package file

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/internal/latest"
)

// A bucket is one directory of records, such as v1/instances, that is watched,
// with a goroutine that scans it. There is one as long as there are watches.
type bucket struct {
	store *Store
	name  string // slash-separated, below the store's directory
	path  string // absolute, in the system's form

	watches int           // running now; guarded by store.mu
	done    chan struct{} // closed with the last
	poked   chan struct{} // something has changed: scan
	retimed chan struct{} // something expires sooner than the loop knows
	set     *latest.Value[discovery.Snapshot]
	changes changes

	scanMu  sync.Mutex       // guards what follows: one scan at a time
	seen    map[string]entry // what the last scan found, by file name
	expires time.Time        // when the next record does; zero if none will
}

// watched returns the bucket of that name for one watch, which leaves it again.
func (s *Store) watched(name string) (*bucket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, discovery.ErrClosed
	}
	b, ok := s.buckets[name]
	if !ok {
		b = &bucket{
			store:   s,
			name:    name,
			path:    s.dir.join(name),
			done:    make(chan struct{}),
			poked:   make(chan struct{}, 1),
			retimed: make(chan struct{}, 1),
			set:     latest.New(discovery.Snapshot{}),
		}
		s.buckets[name] = b
		s.wg.Go(b.loop)
	}
	b.watches++
	return b, nil
}

// leave ends one watch's use of the bucket.
func (b *bucket) leave() {
	s := b.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.watches--; b.watches == 0 {
		delete(s.buckets, b.name)
		close(b.done)
	}
}

// loop scans until there are no more watches.
func (b *bucket) loop() {
	defer b.unhear()
	timer := time.NewTimer(b.store.timing.scan)
	defer timer.Stop()
	for {
		select {
		case <-b.done:
			return
		case <-b.store.done:
			return
		case <-b.retimed:
			timer.Reset(b.wait())
			continue
		case <-b.poked:
		case <-timer.C:
		}
		began := time.Now()
		err := b.scan(false) // the watches tell of it
		if !b.rest(time.Since(began)) {
			return
		}
		next := b.wait()
		if err != nil {
			next = jitter(b.store.timing.scan)
		}
		timer.Reset(next)
	}
}

// rest waits after a scan, so that a burst of changes in a large directory does
// not turn into scans without end: they take a tenth of the time, but what comes
// is never unseen for more than a scan's turn. It returns false at the end.
func (b *bucket) rest(scan time.Duration) bool {
	timer := time.NewTimer(min(max(5*time.Millisecond, 9*scan), b.store.timing.scan))
	defer timer.Stop()
	select {
	case <-b.done:
		return false
	case <-b.store.done:
		return false
	case <-timer.C:
		return true
	}
}

// wait returns how long there is nothing to do.
func (b *bucket) wait() time.Duration {
	d := b.store.timing.scan
	b.scanMu.Lock()
	defer b.scanMu.Unlock()
	if !b.expires.IsZero() {
		d = min(d, time.Until(b.expires))
	}
	return max(d, time.Millisecond)
}

func (b *bucket) poke()   { signal(b.poked) }
func (b *bucket) retime() { signal(b.retimed) }

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is under way already
	}
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
