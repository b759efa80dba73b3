package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/internal/owner"
)

// A lease is one record that this store has put.
type lease struct {
	keeper  *keeper
	key     string
	bucket  string
	file    string
	value   []byte
	content []byte // of the file
	ttl     time.Duration
	end     time.Time // when ttl ends, roughly: by this machine's clock

	state    atomic.Int32 // of the call of Put
	released atomic.Bool

	// The keeper's goroutine alone uses what follows.
	info     fs.FileInfo // of the file as this store last wrote it
	replaced bool        // another owner's record stands in its place
	free     bool        // the key was free at the last look
}

// The states of a Put, which may give up before its record is there.
const (
	putting int32 = iota
	stands
	abandoned
)

func (k *keeper) newLease(key string, value []byte, ttl time.Duration) (*lease, error) {
	bucket, rest := bucketOf(key)
	file := fileName(rest)
	content, err := encode(file, key, value, ttl)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", key, err)
	}
	return &lease{
		keeper:  k,
		key:     key,
		bucket:  bucket,
		file:    file,
		value:   bytes.Clone(value),
		content: content,
		ttl:     ttl,
	}, nil
}

// Release implements [discovery.Lease].
func (l *lease) Release(ctx context.Context) error {
	k := l.keeper
	l.released.Store(true) // if removing it fails, it expires
	result := make(chan error, 1)
	err := k.do(ctx, func() {
		err := k.release(l)
		result <- err
	})
	if err == nil {
		select {
		case err = <-result:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil && !errors.Is(err, discovery.ErrClosed) {
		return fmt.Errorf("releasing %s: %w", l.key, err)
	}
	return nil
}

// asWritten reports whether info is that of the file as this store last wrote it.
func (l *lease) asWritten(info fs.FileInfo) bool { return unchanged(info, l.info) }

// found is what a lease finds in place of its record.
type found struct {
	content []byte
	value   []byte
	ttl     time.Duration
}

// find reads what stands in place of the record. Something that can't be a record
// counts as another owner's.
func (l *lease) find(dir *os.Root, info fs.FileInfo) (found, error) {
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return found{value: []byte{0}}, nil
	}
	content, err := readFile(dir, l.file, info)
	if gone(err) {
		err = errReplaced
	}
	if err != nil {
		return found{}, err
	}
	h, value, err := decode(content)
	if err != nil {
		value = nil // cut within the header
	}
	return found{content: content, value: value, ttl: h.ttl()}, nil
}

// owns reports whether what was found is the record of l, or damaged remains of it.
func (l *lease) owns(f found) bool {
	return owner.Same(l.value, f.value) || owner.Damaged(l.value, f.value)
}

// renew touches the file of l. It reads the file only if somebody else has written
// it since this store did. It returns true if the record was lost and is put again.
func (l *lease) renew(dir *os.Root) (lost bool, err error) {
	info, err := dir.Lstat(l.file)
	if err == nil && l.asWritten(info) {
		if err = l.touch(dir, info); !errors.Is(err, errReplaced) {
			return false, err
		}
		info, err = dir.Lstat(l.file)
	}
	if gone(err) {
		return !l.replaced, l.putAgain()
	}
	if err != nil {
		return false, err
	}
	l.free = false
	found, err := l.find(dir, info)
	switch {
	case errors.Is(err, errReplaced):
		return false, nil // just now: the next round sees by what
	case err != nil:
		return false, err
	case l.owns(found):
		return false, l.takeBack(dir, info, found)
	}
	return false, l.yield(dir, info, found)
}

// touch sets the modification time of the file that info describes to the present.
// It overwrites the first byte with itself, so that the time comes from the file
// system's clock. A file that can't be written is replaced by a new one.
func (l *lease) touch(dir *os.Root, info fs.FileInfo) error {
	f, err := dir.OpenFile(l.file, os.O_WRONLY, 0)
	switch {
	case gone(err):
		return errReplaced
	case errors.Is(err, fs.ErrPermission):
		return l.publish(false)
	case err != nil:
		return err
	}
	opened, err := f.Stat()
	if err == nil && !unchanged(opened, info) {
		err = errReplaced
	}
	if err == nil {
		err = writeFirst(f, l.content[0])
	}
	var written fs.FileInfo
	if err == nil {
		written, err = f.Stat()
	}
	if err == nil && written.Size() == int64(len(l.content)) { // otherwise the next round reads it
		l.info = written
	}
	return errors.Join(err, f.Close())
}

// putAgain puts a record whose key is free. If another owner had taken the key it
// waits for one more round, because that owner may be about to put its record again.
func (l *lease) putAgain() error {
	if l.replaced && !l.free {
		l.free = true
		return nil
	}
	err := l.publish(true)
	if errors.Is(err, fs.ErrExist) {
		return nil // the next round sees whose it is
	}
	if err == nil {
		l.returned()
	}
	return err
}

// takeBack takes over a copy of the record, and writes the record again if somebody
// has edited or damaged it.
func (l *lease) takeBack(dir *os.Root, info fs.FileInfo, found found) error {
	if bytes.Equal(found.content, l.content) {
		err := l.touch(dir, info)
		if errors.Is(err, errReplaced) {
			return nil
		}
		if err == nil {
			l.returned()
		}
		return err
	}
	if err := l.publish(false); err != nil {
		return err
	}
	l.returned()
	l.keeper.log.Warn("somebody has changed a record of this process, which is written again", "dir", l.keeper.dir.join(l.bucket), "key", l.key)
	return nil
}

// yield leaves the key to another owner for as long as that owner lives.
func (l *lease) yield(dir *os.Root, info fs.FileInfo, found found) error {
	now, err := l.keeper.clock.now()
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() && l.keeper.timing.isDead(now.since(info.ModTime()), found.ttl) {
		if err := removeDead(dir, l.file, info); err != nil {
			return err
		}
		l.free = true // its owner had time to put it again
		return l.putAgain()
	}
	if !l.replaced {
		l.replaced = true
		l.keeper.setOurs(l, false)
		l.keeper.log.Warn("another owner has replaced a record of this process, which is written again when the key is free", "dir", l.keeper.dir.join(l.bucket), "key", l.key)
	}
	return nil
}

// returned notes that the record of l stands.
func (l *lease) returned() {
	if l.replaced {
		l.keeper.log.Info("a record of this process stands again", "dir", l.keeper.dir.join(l.bucket), "key", l.key)
	}
	l.replaced, l.free = false, false
	l.keeper.setOurs(l, true)
}

// publish writes the file of l. With isNew the error is [fs.ErrExist] if the file
// exists.
func (l *lease) publish(isNew bool) (err error) {
	for range 3 {
		// Somebody may delete the directory meanwhile: make it again.
		if err = l.write(isNew); !gone(err) {
			break
		}
	}
	return err
}

// write writes the file under a temporary name and moves it into place, so that
// nobody ever reads half of it. It does not sync it to disk: a crash of the machine
// kills the owner too.
func (l *lease) write(isNew bool) (err error) {
	dir, err := l.keeper.dir.makeBucket(l.bucket)
	if err != nil {
		return err
	}
	defer shut(dir)
	temp := tempName()
	f, err := createFile(dir, temp)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = dir.Remove(temp) // if that fails, a sweep removes it
		}
	}()
	_, err = f.Write(l.content)
	info, statErr := f.Stat()
	if err := errors.Join(err, statErr, f.Close()); err != nil {
		return err
	}
	if err := l.keeper.dir.giveAway(dir, temp); err != nil {
		return err
	}
	if err := move(dir, temp, l.file, isNew); err != nil {
		return err
	}
	l.info = info
	if l.ttl > 0 {
		l.end = time.Now().Add(l.ttl)
	}
	return nil
}

// move renames the file temp. With isNew it does not replace a file that exists.
func move(dir *os.Root, temp, name string, isNew bool) error {
	if isNew {
		err := dir.Link(temp, name)
		if err == nil {
			return dir.Remove(temp)
		}
		if errors.Is(err, fs.ErrExist) {
			return err
		}
		// This file system has no hard links: a file that has come since the last look
		// is replaced.
	}
	return dir.Rename(temp, name)
}

// remove removes the file of l if it still has the record of l.
func (l *lease) remove() error {
	dir, err := l.keeper.dir.bucket(l.bucket)
	if dir == nil {
		return err
	}
	defer shut(dir)
	info, err := dir.Lstat(l.file)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if !l.asWritten(info) {
		found, err := l.find(dir, info)
		if errors.Is(err, errReplaced) {
			return nil // just now, by another owner: there is nothing of this one's
		}
		if err != nil || !l.owns(found) {
			return err
		}
	}
	if err := dir.Remove(l.file); !gone(err) {
		return err
	}
	return nil
}
