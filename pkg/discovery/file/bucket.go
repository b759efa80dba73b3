package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/internal/latest"
)

// A bucket is one directory of records, such as v1/instances, with a goroutine
// that keeps this store's records in it alive and finds out about all others.
type bucket struct {
	store *Store
	name  string // slash-separated, below the store's directory
	path  string // absolute, in the system's form

	poked   chan struct{} // something has changed: scan
	retimed chan struct{} // something expires sooner than the loop knows
	watches atomic.Int64  // running now
	set     *latest.Value[discovery.Snapshot]
	changes changes

	mu     sync.Mutex // guards what follows, and this store's own files
	closed bool
	owned  map[string]*lease // by file name
	outage bool              // its owned records could not all be kept

	scanMu  sync.Mutex       // guards what follows: one scan at a time
	seen    map[string]entry // what the last scan found, by file name
	probe   string           // the file that tells the file system's time
	expires time.Time        // when the next record does; zero if none will
	missing bool             // a record that is kept was not there
}

func newBucket(s *Store, name string) *bucket {
	return &bucket{
		store:   s,
		name:    name,
		path:    filepath.Join(s.dir, filepath.FromSlash(name)),
		poked:   make(chan struct{}, 1),
		retimed: make(chan struct{}, 1),
		set:     latest.New(discovery.Snapshot{}),
		owned:   make(map[string]*lease),
		probe:   tempName(),
	}
}

// loop touches and scans until the store is closed.
func (b *bucket) loop() {
	timing := b.store.timing
	touchAt := time.Now().Add(timing.touch)
	timer := time.NewTimer(timing.touch)
	defer timer.Stop()
	for {
		select {
		case <-b.store.done:
			return
		case <-b.retimed:
			timer.Reset(b.wait(touchAt))
			continue
		case <-b.poked:
		case <-timer.C:
		}
		if !b.active() {
			timer.Reset(timing.touch)
			continue
		}
		began := time.Now()
		// Touch first: after a pause of the whole process, what is ours would
		// look dead.
		if !began.Before(touchAt) {
			b.touch()
			touchAt = began.Add(timing.touch)
		}
		// How a scan fails is the watches' to tell.
		if err := b.scan(false); err == nil && b.lacks() {
			b.touch()
			_ = b.scan(false)
		}
		if !b.rest(time.Since(began)) {
			return
		}
		timer.Reset(b.wait(touchAt))
	}
}

// rest waits after a scan, so that a burst of changes in a large directory does
// not turn into scans without end: they take a tenth of the time at most. It
// returns false once the store is closed.
func (b *bucket) rest(scan time.Duration) bool {
	timer := time.NewTimer(max(5*time.Millisecond, 9*scan))
	defer timer.Stop()
	select {
	case <-b.store.done:
		return false
	case <-timer.C:
		return true
	}
}

// wait returns how long there is nothing to do.
func (b *bucket) wait(touchAt time.Time) time.Duration {
	d := time.Until(touchAt)
	if b.watches.Load() > 0 {
		d = min(d, b.store.timing.scan)
		b.scanMu.Lock()
		defer b.scanMu.Unlock()
		if !b.expires.IsZero() {
			d = min(d, time.Until(b.expires))
		}
	}
	return max(d, time.Millisecond)
}

// active reports whether anybody has to do with the bucket now.
func (b *bucket) active() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.watches.Load() > 0 || len(b.owned) > 0
}

// lacks reports whether the last scan missed a record that this store keeps.
func (b *bucket) lacks() bool {
	b.scanMu.Lock()
	defer b.scanMu.Unlock()
	return b.missing
}

func (b *bucket) poke()   { signal(b.poked) }
func (b *bucket) retime() { signal(b.retimed) }

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is under way already
	}
}

// open returns the bucket's directory, which it makes if it isn't there. It
// does so anew each time, as the directory may be deleted and made again while
// the store is in use.
func (b *bucket) open() (*os.Root, error) {
	if err := os.MkdirAll(b.store.dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(b.store.dir)
	if err != nil {
		return nil, err
	}
	defer shut(root)
	for _, name := range []string{path.Dir(b.name), b.name} {
		info, err := root.Lstat(name)
		if gone(err) {
			if err := root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
			info, err = root.Lstat(name)
		}
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			return nil, fmt.Errorf("%s in %s is not a directory, and symlinks are not followed", name, b.store.dir)
		}
	}
	return root.OpenRoot(b.name)
}

// close releases what this store keeps in the bucket, or leaves it as a crash
// would. The loop has ended.
func (b *bucket) close(release bool) error {
	b.mu.Lock()
	b.closed = true
	var kept []*lease
	for _, l := range b.owned {
		if l.ttl == 0 && release {
			kept = append(kept, l)
		}
	}
	clear(b.owned)
	b.mu.Unlock()

	b.scanMu.Lock() // no scan makes the probe again from here on
	defer b.scanMu.Unlock()
	if !release {
		return nil
	}
	dir, err := b.openThere()
	if dir == nil {
		if len(kept) == 0 {
			return nil // only the probe may be left, and others sweep it
		}
		return err
	}
	defer shut(dir)
	var errs []error
	for _, l := range kept {
		errs = append(errs, l.remove(dir))
	}
	if err := dir.Remove(b.probe); err != nil && !gone(err) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// openThere is open, but returns nil if the directory isn't there.
func (b *bucket) openThere() (*os.Root, error) {
	if _, err := os.Lstat(b.path); gone(err) {
		return nil, nil
	}
	return b.open()
}
