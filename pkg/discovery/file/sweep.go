package file

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"time"
)

// isDead reports whether a record's owner is taken for dead: it was put or
// touched that long ago. A record that is kept alive has no ttl. What was touched
// far in the future was stamped by a clock that nobody goes by any more.
func (t timing) isDead(age, ttl time.Duration) bool {
	return age >= t.life(ttl) || -age > t.dead
}

// life returns how long a record stands that nobody touches.
func (t timing) life(ttl time.Duration) time.Duration {
	if ttl > 0 {
		return ttl
	}
	return t.dead
}

// removeDead removes the file if it is still as info says. Its owner may come
// back to life between the two: then it misses the record and puts it again.
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

// sweep removes the dead from where nobody may be watching who would: from the
// buckets in which this store keeps records once, as there are as many owners as
// records; from the others, where owners come and go, every minute or so.
// dirs are the former.
func (k *keeper) sweep(dirs map[string]*os.Root) {
	for bucket, dir := range dirs {
		if !k.swept[bucket] {
			k.swept[bucket] = true
			k.sweepBucket(bucket, dir)
		}
	}
	now := time.Now()
	if len(dirs) == 0 || now.Before(k.sweepAt) {
		return
	}
	k.sweepAt = now.Add(k.timing.sweep/2 + rand.N(k.timing.sweep))
	buckets, err := k.dir.buckets()
	if err != nil {
		return // touching has the same trouble, and tells of it
	}
	for _, bucket := range buckets {
		if dirs[bucket] != nil {
			continue
		}
		dir, err := k.dir.bucket(bucket)
		if dir == nil || err != nil {
			continue // not one, or gone
		}
		k.sweepBucket(bucket, dir)
		shut(dir)
	}
}

// sweepBucket removes what is dead in a bucket. What fails is left to who
// watches, who has to tell of it.
func (k *keeper) sweepBucket(bucket string, dir *os.Root) {
	names, err := readNames(dir)
	if err != nil || len(names) == 0 {
		return
	}
	now, err := k.clock.now()
	if err != nil {
		return
	}
	k.dir.sweepStrays(dir, names, now, k.timing.stray)
	removed := 0
	for _, name := range names {
		if _, ok := keyOf(bucket, name); !ok && !hashed(name) || k.keeps(bucket, name) {
			continue
		}
		info, err := dir.Lstat(name)
		if err != nil || !info.Mode().IsRegular() || !k.timing.isDead(now.since(info.ModTime()), 0) {
			continue
		}
		// It is, unless it says that it stands for longer.
		content, err := readFile(dir, name, info)
		if gone(err) || errors.Is(err, errReplaced) {
			continue
		}
		h, _, _ := decode(content)
		if k.timing.isDead(now.since(info.ModTime()), h.ttl()) && removeDead(dir, name, info) == nil {
			removed++
		}
	}
	if removed > 0 {
		k.log.Debug("removed dead records", "dir", dir.Name(), "removed", removed)
	}
}
