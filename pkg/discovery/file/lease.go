package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// What can have become of a record that this store has written.
var (
	errLost  = errors.New("the record is not there any more")
	errTaken = errors.New("another owner's record stands in its place")
)

// A lease is one record that this store has written.
type lease struct {
	bucket *bucket
	key    string
	file   string
	value  []byte
	ttl    time.Duration
	end    time.Time   // when ttl is over, by this machine's clock; roughly
	info   fs.FileInfo // of the file as written last; guarded by bucket.mu
}

func (b *bucket) put(l *lease) (discovery.Lease, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, discovery.ErrClosed
	}
	if err := b.publish(l); err != nil {
		return nil, fmt.Errorf("putting %s into %s: %w", l.key, b.path, err)
	}
	b.owned[l.file] = l
	b.poke()
	return l, nil
}

// Release implements [discovery.Lease].
func (l *lease) Release(context.Context) error {
	b := l.bucket
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.owned[l.file] != l {
		return nil
	}
	delete(b.owned, l.file) // it expires now, should it not be removed
	dir, err := b.openThere()
	if dir == nil {
		return err
	}
	defer shut(dir)
	if err := l.remove(dir); err != nil {
		return fmt.Errorf("releasing %s: %w", l.key, err)
	}
	b.poke()
	return nil
}

// remove removes the file, if it is still the lease's own.
func (l *lease) remove(dir *os.Root) error {
	f, err := l.open(dir)
	if errors.Is(err, errLost) || errors.Is(err, errTaken) {
		return nil
	}
	if err != nil {
		return err
	}
	shut(f) // before the removal, which Windows would refuse
	if err := dir.Remove(l.file); !gone(err) {
		return err
	}
	return nil
}

// open returns the file if it is still the lease's own: the very file that was
// written, with the very content. A file that came later has another number, or
// if it was given the same one after ours had gone, another content.
func (l *lease) open(dir *os.Root) (*os.File, error) {
	info, err := dir.Lstat(l.file)
	if gone(err) {
		return nil, errLost
	}
	if err != nil {
		return nil, err
	}
	if !os.SameFile(info, l.info) {
		return nil, errTaken
	}
	f, err := dir.OpenFile(l.file, os.O_RDWR, 0)
	if gone(err) {
		return nil, errLost
	}
	if err != nil {
		return nil, err
	}
	value, err := readRecord(f, info)
	if err != nil || !bytes.Equal(value, l.value) {
		shut(f)
		if err == nil || errors.Is(err, errTaken) {
			return nil, errTaken
		}
		return nil, err
	}
	return f, nil
}

// publish writes the file of l. b.mu is held.
func (b *bucket) publish(l *lease) (err error) {
	for range 3 {
		// Should the directory be deleted under our feet, it is made again.
		if err = b.write(l); !gone(err) {
			break
		}
	}
	return err
}

// write makes the file under a temporary name and moves it into its place, so
// that nobody ever reads half of one. It is not synced to the disk: after a
// crash of the machine its owner is dead too.
func (b *bucket) write(l *lease) (err error) {
	dir, err := b.open()
	if err != nil {
		return err
	}
	defer shut(dir)
	temp := tempName()
	f, err := dir.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = dir.Remove(temp) // what is left is swept as a stray
		}
	}()
	_, err = f.Write(l.value)
	info, statErr := f.Stat()
	if err := errors.Join(err, statErr, f.Close()); err != nil {
		return err
	}
	if l.ttl > 0 {
		// Just written, its time of change is the file system's present.
		end := info.ModTime().Add(l.ttl - b.store.timing.dead)
		if err := dir.Chtimes(temp, end, end); err != nil {
			return err
		}
		l.end = time.Now().Add(l.ttl)
	}
	if err := dir.Rename(temp, l.file); err != nil {
		return err
	}
	l.info = info
	return nil
}

func tempName() string { return tempPrefix + strconv.FormatUint(rand.Uint64(), 16) }

// readRecord reads f, which was opened under the name that gave info. If it
// is another file by now, a symlink's target for one, it reads nothing.
func readRecord(f *os.File, info fs.FileInfo) ([]byte, error) {
	opened, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !os.SameFile(opened, info) {
		return nil, errTaken
	}
	return io.ReadAll(io.LimitReader(f, discovery.MaxValue+1))
}
