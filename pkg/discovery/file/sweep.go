package file

import (
	"io/fs"
	"os"
	"time"
)

// now asks the file system for its time, by writing to a file of this store's
// own: the files' times of change come from that clock, which over a network is
// another machine's.
func (b *bucket) now(dir *os.Root) (time.Time, error) {
	f, err := dir.OpenFile(b.probe, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return time.Time{}, err
	}
	defer shut(f)
	if err := writeFirst(f, '\n'); err != nil {
		return time.Time{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

func (b *bucket) dead(info fs.FileInfo, now time.Time) bool {
	return now.Sub(info.ModTime()) >= b.store.timing.dead
}

// sweep removes the record under name if it is still dead, and returns what is
// left to say of it. Its owner may come back to life between the two: then it
// misses the record and writes it again.
func (b *bucket) sweep(dir *os.Root, name string, now time.Time) entry {
	if b.keeps(name) {
		return entry{} // we are alive, and will touch it when we can
	}
	info, err := dir.Lstat(name)
	if err != nil || !info.Mode().IsRegular() || !b.dead(info, now) {
		return entry{}
	}
	if err := dir.Remove(name); err != nil && !gone(err) {
		return entry{problem: "it is dead and can't be removed: " + err.Error()}
	}
	b.store.log.Debug("removed a dead record", "dir", b.path, "file", name, "age", now.Sub(info.ModTime()))
	return entry{}
}

func (b *bucket) keeps(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, ok := b.owned[name]
	return ok && l.ttl == 0
}

// sweepStray removes a temporary file that its maker has left behind.
func (b *bucket) sweepStray(dir *os.Root, name string, now time.Time) {
	info, err := dir.Lstat(name)
	if err != nil || !info.Mode().IsRegular() || now.Sub(info.ModTime()) < b.store.timing.stray {
		return
	}
	if err := dir.Remove(name); err == nil {
		b.store.log.Debug("removed a temporary file left behind", "dir", b.path, "file", name)
	}
}
