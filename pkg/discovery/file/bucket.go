package file

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/internal/latest"
	"github.com/request-migration/migrate/pkg/internal/signal"
)

// A bucket is one directory of records, such as v1/instances, that is watched. It
// has a goroutine that scans the directory for as long as there are watches.
type bucket struct {
	store *Store
	name  string // slash-separated, below the store's directory
	path  string // absolute, in the system's form

	watches int           // running now; guarded by store.mu
	done    chan struct{} // closed when the last watch ends
	poked   chan struct{} // has a token when something has changed: scan
	retimed chan struct{} // has a token when expires has changed: set the timer anew
	set     *latest.Value[discovery.Snapshot]
	changes changes

	scanMu  sync.Mutex       // guards what follows: one scan at a time
	seen    map[string]entry // what the last scan found, by file name
	expires time.Time        // when the first of the records expires; zero if there is none
}

// watched returns the bucket of that name for one watch, which must call leave.
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
		err := b.scan(false) // the watches get the error as a stale set
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

// rest pauses after a scan that took that long, but never longer than the time
// between two scans of a directory at rest. It returns false if the bucket ended
// meanwhile.
func (b *bucket) rest(scan time.Duration) bool {
	timer := time.NewTimer(latest.Pause(scan, b.store.timing.scan))
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

// wait returns the time until the next scan, unless something changes before.
func (b *bucket) wait() time.Duration {
	d := b.store.timing.scan
	b.scanMu.Lock()
	defer b.scanMu.Unlock()
	if !b.expires.IsZero() {
		d = min(d, time.Until(b.expires))
	}
	return max(d, time.Millisecond)
}

func (b *bucket) poke() { signal.Send(b.poked) }

func (b *bucket) retime() { signal.Send(b.retimed) }

// An entry is what a scan found under one name.
type entry struct {
	info    fs.FileInfo
	read    time.Time // when record was read, by the file system's clock
	record  discovery.Record
	ttl     time.Duration // 0 for a record that is kept alive
	problem string        // why there is no record
}

// scan lists the bucket, removes dead records and hands the set to the watches. If
// it fails they get the last set, marked stale. An exact scan looks at every file;
// any other relies on the system's notices, which may come a moment late.
func (b *bucket) scan(exact bool) error {
	b.scanMu.Lock()
	defer b.scanMu.Unlock()
	last, _ := b.set.Get()
	next := discovery.Snapshot{Records: last.Records}
	records, clockErr, err := b.list(exact)
	if err != nil {
		b.changes.addAll() // the notices since the last scan are used up
		err = fmt.Errorf("scanning %s: %w", b.path, err)
		next.Stale = err
	} else {
		next.Records = records
		if clockErr != nil {
			next.Stale = fmt.Errorf("scanning %s, whose records may be too old: %w", b.path, clockErr)
		}
	}
	if !next.Equal(last) {
		b.set.Set(next)
	}
	return err
}

// list returns the records that stand now, sorted. If the file system's clock can't
// be read, because the disk is full or read-only, it judges by this machine's
// clock, removes nothing and returns clockErr besides. b.scanMu is held.
func (b *bucket) list(exact bool) (records []discovery.Record, clockErr, err error) {
	// Take the notices first, so that those of changes during the scan remain.
	dir, dirty, err := b.open()
	if err != nil {
		return nil, nil, err
	}
	b.expires = time.Time{}
	if dir == nil {
		b.seen = nil
		return nil, nil, nil
	}
	defer shut(dir)
	dirty.all = dirty.all || exact
	began := time.Now()
	now, clockErr := b.store.clock.now()
	names, err := readNames(dir)
	if err != nil {
		return nil, nil, err
	}
	if clockErr == nil {
		b.store.dir.sweepStrays(dir, names, now, b.store.timing.stray)
	}
	seen, problems := make(map[string]entry, len(names)), make(told)
	records = make([]discovery.Record, 0, len(names))
	for _, name := range names {
		if _, twice := seen[name]; twice || isTemp(name) {
			continue
		}
		e, ok := b.inspect(dir, name, now, dirty)
		if !ok {
			continue
		}
		var err error
		if e.info != nil && b.isDead(name, e, now) {
			if clockErr == nil {
				err = removeDead(dir, name, e.info)
			}
			if err == nil {
				b.store.log.Debug("left out a dead record", "dir", b.path, "file", name, "age", now.since(e.info.ModTime()))
				continue
			}
			e = entry{problem: "it is dead and can't be removed: " + err.Error()}
		}
		seen[name] = e
		if e.problem != "" {
			problems[name] = e.problem
			continue
		}
		records = append(records, e.record)
		b.expire(began.Add(b.store.timing.life(e.ttl) - now.since(e.info.ModTime())))
	}
	b.seen = seen
	b.tell(problems)
	slices.SortFunc(records, func(a, b discovery.Record) int { return cmp.Compare(a.Key, b.Key) })
	return records, clockErr, nil
}

// isDead reports whether a file's owner is taken for dead. This process never is,
// even when it could not renew its records.
func (b *bucket) isDead(name string, e entry, now moment) bool {
	return b.store.timing.isDead(now.since(e.info.ModTime()), e.ttl) && !b.store.keeper.keeps(b.name, name)
}

// expire notes that a record dies at t unless it is touched.
func (b *bucket) expire(t time.Time) {
	if b.expires.IsZero() || t.Before(b.expires) {
		b.expires = t
	}
}

// told has the reasons why files are no records, by file name.
type told map[string]string

// tell logs the problems that the last scan did not have.
func (b *bucket) tell(problems told) {
	b.store.mu.Lock()
	before := b.store.told[b.name]
	b.store.told[b.name] = problems
	b.store.mu.Unlock()
	for name, problem := range problems {
		if problem == before[name] {
			continue
		}
		level := slog.LevelWarn
		if foreign(name) {
			level = slog.LevelDebug
		}
		b.store.log.Log(context.Background(), level, "skipping a file that is no record", "dir", b.path, "file", name, "problem", problem)
	}
}

// inspect returns what is under name, or false if nothing is. The entry of a regular
// file with a record's name has its info even if there is a problem, so that the
// file can be removed when it is dead.
func (b *bucket) inspect(dir *os.Root, name string, now moment, dirty dirtyNames) (e entry, ok bool) {
	if _, ok := keyOf(b.name, name); !ok && !hashed(name) {
		return entry{problem: "its name is not that of a record"}, true
	}
	old := b.seen[name]
	if old.record.Key != "" && dirty.untold(name) && b.lives(old, now) {
		return old, true // looking at each of 10,000 files takes long
	}
	// The file may be replaced between the look at it and reading it.
	for range 3 {
		info, err := dir.Lstat(name)
		switch {
		case gone(err):
			return entry{}, false
		case err != nil:
			return entry{problem: err.Error()}, true
		case !info.Mode().IsRegular():
			return entry{problem: "it is not a regular file"}, true
		case old.record.Key != "" && dirty.unchanged(name, old, info):
			old.info = info
			return old, true
		}
		e, err := b.read(dir, name, info)
		switch {
		case errors.Is(err, errReplaced):
			continue
		case gone(err):
			return entry{}, false
		case err != nil:
			e.problem = err.Error()
		}
		e.info, e.read = info, now.time
		return e, true
	}
	return old, old.info != nil // for now: there will be notices of the replacements
}

// lives reports whether a record that was seen can't be dead yet. One that is kept
// alive is looked at again after half of its lease time.
func (b *bucket) lives(e entry, now moment) bool {
	age := now.since(e.info.ModTime())
	if e.ttl == 0 && age >= b.store.timing.dead/2 {
		return false
	}
	return !b.store.timing.isDead(age, e.ttl)
}

// read reads the record from the file with that info.
func (b *bucket) read(dir *os.Root, name string, info fs.FileInfo) (entry, error) {
	switch {
	case info.Size() > maxFile:
		return entry{}, fmt.Errorf("it has more than %d bytes", discovery.MaxValue)
	case info.Size() == 0:
		return entry{}, errors.New("it is empty")
	}
	content, err := readFile(dir, name, info)
	if err != nil {
		return entry{}, err
	}
	record, ttl, err := recordIn(b.name, name, content)
	return entry{record: record, ttl: ttl}, err
}
