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

func (b *bucket) poke() { signal(b.poked) }

func (b *bucket) retime() { signal(b.retimed) }

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is under way already
	}
}

// An entry is what a scan has found under one name.
type entry struct {
	info    fs.FileInfo
	read    time.Time // when record was read from it, by the file system's clock
	record  discovery.Record
	ttl     time.Duration // 0 for a record that is kept alive
	problem string        // why there is no record
}

// scan finds out what is in the bucket, removes what is dead, and hands the set
// to the watches. If it fails they get the last set, as stale. An exact scan
// goes by what is there alone, and not by what the system has told of changes,
// which may come a moment later.
func (b *bucket) scan(exact bool) error {
	b.scanMu.Lock()
	defer b.scanMu.Unlock()
	last, _ := b.set.Get()
	next := discovery.Snapshot{Records: last.Records}
	records, clockErr, err := b.list(exact)
	if err != nil {
		b.changes.addAll() // what had been told is lost
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

// list returns the records that stand now, sorted. Where the file system's clock
// can't be read, as its disk is full or it may not be written, it goes by this
// machine's, removes nothing, and returns the reason too. b.scanMu is held.
func (b *bucket) list(exact bool) (records []discovery.Record, clockErr, err error) {
	// First, so that what changes while the directory is read is told later.
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

func (b *bucket) isDead(name string, e entry, now moment) bool {
	// We are alive, and touch ours when we can.
	return b.store.timing.isDead(now.since(e.info.ModTime()), e.ttl) && !b.store.keeper.keeps(b.name, name)
}

// expire notes that a record dies at t unless it is touched.
func (b *bucket) expire(t time.Time) {
	if b.expires.IsZero() || t.Before(b.expires) {
		b.expires = t
	}
}

// told is, by file name, why files are no records.
type told map[string]string

// tell logs what no scan of the store has told before.
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

// inspect returns what is under name, false if nothing is. Of a regular file with
// a record's name the entry has its info, so that it can be judged by age even
// where it is no record.
func (b *bucket) inspect(dir *os.Root, name string, now moment, dirty dirtyNames) (e entry, ok bool) {
	if _, ok := keyOf(b.name, name); !ok && !hashed(name) {
		return entry{problem: "its name is not that of a record"}, true
	}
	old := b.seen[name]
	if old.record.Key != "" && dirty.untold(name) && b.lives(old, now) {
		return old, true // a look at each of very many takes long
	}
	// More than once, as it may be replaced between a look at it and reading it.
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
	return old, old.info != nil // for now: whoever replaces it that often will be told of again
}

// lives reports whether what was seen can't be dead yet. A record that is kept
// alive is looked at twice in its lease time.
func (b *bucket) lives(e entry, now moment) bool {
	age := now.since(e.info.ModTime())
	if e.ttl == 0 && age >= b.store.timing.dead/2 {
		return false
	}
	return !b.store.timing.isDead(age, e.ttl)
}

// read returns what the file with that info has as its content.
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
