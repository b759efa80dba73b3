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
	end     time.Time // when ttl is over, by this machine's clock; roughly

	state    atomic.Int32 // of the call of Put
	released atomic.Bool

	// What follows is the keeper's.
	info     fs.FileInfo // of the file as this store last wrote it
	replaced bool        // another owner's record stands in its place
	free     bool        // nobody's did at the last look
}

// States of a call of Put, which may end before its record is there.
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
	l.released.Store(true) // it expires now, should it not be removed
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

// found is what stands in the place of a record. What is no record is some
// other value.
type found struct {
	content []byte
	value   []byte
	ttl     time.Duration
}

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

// owns reports whether what was found is the owner's of l, or what is left of it.
func (l *lease) owns(f found) bool {
	return owner.Same(l.value, f.value) || owner.Damaged(l.value, f.value)
}

// renew touches the file of l, which takes no reading as long as it is as this
// store has left it. It returns true if the record was lost and is put again.
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
		return false, nil // at this very moment: the next round sees by what
	case err != nil:
		return false, err
	case l.owns(found):
		return false, l.takeBack(dir, info, found)
	}
	return false, l.yield(dir, info, found)
}

// touch sets the time of change of the file that info is of to the present. It
// does so by writing the first byte over itself: then it is the file system that
// says what the present is. What may not be written is put anew.
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
	if err == nil && written.Size() == int64(len(l.content)) { // else the next round looks into it
		l.info = written
	}
	return errors.Join(err, f.Close())
}

// putAgain puts a record whose key is free. One that another owner had taken
// waits for a round more, as that owner may be about to put it again itself.
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

// takeBack makes a record that another hand has changed or copied l's own again.
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
	l.keeper.log.Warn("a record of ours was changed by another hand, and is written again as it was", "dir", l.keeper.dir.join(l.bucket), "key", l.key)
	return nil
}

// yield leaves the key to another owner's record for as long as that is alive.
func (l *lease) yield(dir *os.Root, info fs.FileInfo, found found) error {
	now, err := l.keeper.clock.now()
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() && l.keeper.timing.isDead(now.since(info.ModTime()), found.ttl) {
		if err := removeDead(dir, l.file, info); err != nil {
			return err
		}
		l.free = true // its owner had time enough
		return l.putAgain()
	}
	if !l.replaced {
		l.replaced = true
		l.keeper.setOurs(l, false)
		l.keeper.log.Warn("another owner has put a record of ours anew: theirs stands, ours comes back when the key is free", "dir", l.keeper.dir.join(l.bucket), "key", l.key)
	}
	return nil
}

// returned notes that the record that stands is l's.
func (l *lease) returned() {
	if l.replaced {
		l.keeper.log.Info("a record of ours stands again", "dir", l.keeper.dir.join(l.bucket), "key", l.key)
	}
	l.replaced, l.free = false, false
	l.keeper.setOurs(l, true)
}

// publish writes the file of l. If it is to be new, the error is [fs.ErrExist]
// where there is one.
func (l *lease) publish(isNew bool) (err error) {
	for range 3 {
		// Should the directory be deleted under our feet, it is made again.
		if err = l.write(isNew); !gone(err) {
			break
		}
	}
	return err
}

// write makes the file under a temporary name and moves it into its place, so
// that nobody ever reads half of one. It is not synced to the disk: after a
// crash of the machine its owner is dead too.
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
			_ = dir.Remove(temp) // what is left is swept as a stray
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

// move gives the file temp its name. If that is to be new, another's file is not
// replaced.
func move(dir *os.Root, temp, name string, isNew bool) error {
	if isNew {
		err := dir.Link(temp, name)
		if err == nil {
			return dir.Remove(temp)
		}
		if errors.Is(err, fs.ErrExist) {
			return err
		}
		// A file system without links: the moment since the look must do.
	}
	return dir.Rename(temp, name)
}

// remove removes the file of l, if its record is still l's own.
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
		if err != nil || !l.owns(found) {
			return err
		}
	}
	if err := dir.Remove(l.file); !gone(err) {
		return err
	}
	return nil
}
