package file

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// An entry is what a scan has found under one name.
type entry struct {
	info    fs.FileInfo
	read    time.Time // when record was read from it, by the file system's clock
	record  discovery.Record
	problem string // why there is no record; it has been warned about
}

// scan finds out what is in the bucket, removes what is dead, and hands the set
// to the watches. If it fails they get the last set, as stale. An exact scan
// goes by what is there alone, and not by what the system has told of changes,
// which may come a moment later.
func (b *bucket) scan(exact bool) error {
	b.scanMu.Lock()
	defer b.scanMu.Unlock()
	if b.isClosed() {
		return discovery.ErrClosed
	}
	last, _ := b.set.Get()
	next := discovery.Snapshot{Records: last.Records}
	records, err := b.list(exact)
	if err != nil {
		b.changes.addAll() // what had been told is lost
		next.Stale = fmt.Errorf("scanning %s: %w", b.path, err)
	} else {
		next.Records = records
	}
	if !next.Equal(last) {
		b.set.Set(next)
	}
	return next.Stale
}

func (b *bucket) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

// list returns the records that stand now, sorted. b.scanMu is held.
func (b *bucket) list(exact bool) ([]discovery.Record, error) {
	dir, err := b.open()
	if err != nil {
		return nil, err
	}
	defer shut(dir)
	// First, so that what changes while the directory is read is told later.
	dirty := b.takeChanges(dir)
	dirty.all = dirty.all || exact
	began := time.Now()
	now, err := b.now(dir)
	if err != nil {
		return nil, err
	}
	names, err := readNames(dir)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]entry, len(names))
	records := make([]discovery.Record, 0, len(names))
	var oldest time.Time
	for _, name := range names {
		if strings.HasPrefix(name, tempPrefix) {
			b.sweepStray(dir, name, now)
			continue
		}
		if _, twice := seen[name]; twice {
			continue
		}
		e, ok := b.look(dir, name, now, dirty)
		if !ok {
			continue
		}
		seen[name] = e
		if e.problem != "" {
			continue
		}
		records = append(records, e.record)
		if changed := e.info.ModTime(); oldest.IsZero() || changed.Before(oldest) {
			oldest = changed
		}
	}
	b.seen = seen
	b.missing = b.misses(seen)
	b.expires = time.Time{}
	if !oldest.IsZero() {
		b.expires = began.Add(b.store.timing.dead - now.Sub(oldest))
	}
	slices.SortFunc(records, func(a, b discovery.Record) int { return cmp.Compare(a.Key, b.Key) })
	return records, nil
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

// look returns what is under name, unless it is gone or dead.
func (b *bucket) look(dir *os.Root, name string, now time.Time, dirty dirtyNames) (entry, bool) {
	old := b.seen[name]
	e := b.inspect(dir, name, now, dirty, old)
	if e.problem != "" && e.problem != old.problem {
		b.store.log.Warn("skipping a file that is no record", "dir", b.path, "file", name, "problem", e.problem)
	}
	return e, e.problem != "" || e.record.Key != ""
}

// inspect returns an empty entry for what is gone or dead.
func (b *bucket) inspect(dir *os.Root, name string, now time.Time, dirty dirtyNames, old entry) entry {
	key, ok := keyOf(b.name, name)
	if !ok {
		return entry{problem: "its name is not that of a record"}
	}
	if old.record.Key != "" && dirty.untold(name) && now.Sub(old.info.ModTime()) < b.store.timing.dead/2 {
		return old // can't be dead yet, and a look at each of very many takes long
	}
	// More than once, as it may be replaced between a look at it and reading it.
	for range 3 {
		info, err := dir.Lstat(name)
		switch {
		case gone(err):
			return entry{}
		case err != nil:
			return entry{problem: err.Error()}
		case !info.Mode().IsRegular():
			return entry{problem: "it is not a regular file"}
		case b.dead(info, now):
			return b.sweep(dir, name, now)
		case info.Size() > discovery.MaxValue:
			return entry{problem: fmt.Sprintf("it has more than %d bytes", discovery.MaxValue)}
		case info.Size() == 0:
			return entry{problem: "it is empty"}
		case old.record.Key != "" && dirty.unchanged(name, old, info):
			return entry{info: info, read: old.read, record: old.record}
		}
		f, err := dir.Open(name)
		if gone(err) {
			return entry{}
		}
		if err != nil {
			return entry{problem: err.Error()}
		}
		value, err := readRecord(f, info)
		shut(f)
		switch {
		case errors.Is(err, errTaken):
			continue
		case err != nil:
			return entry{problem: err.Error()}
		case len(value) == 0 || len(value) > discovery.MaxValue:
			return entry{problem: "it changed while it was read"}
		}
		return entry{info: info, read: now, record: discovery.Record{Key: key, Value: value}}
	}
	return old // for now: whoever replaces it that often will be told of again
}

// misses reports whether a record that this store keeps has not been seen, and
// forgets those whose ttl is over.
func (b *bucket) misses(seen map[string]entry) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, missing := time.Now(), false
	for file, l := range b.owned {
		switch _, ok := seen[file]; {
		case l.ttl == 0:
			missing = missing || !ok
		case now.After(l.end.Add(b.store.timing.dead)):
			delete(b.owned, file)
		}
	}
	return missing
}
