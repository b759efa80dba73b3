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
	info     fs.FileInfo // of the file as this store has left it
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

// left reports whether info is that of the file as this store has left it.
func (l *lease) left(info fs.FileInfo) bool { return unchanged(info, l.info) }

// unchanged reports whether a file is the one that it was, and nobody has written
// to it since.
func unchanged(info, was fs.FileInfo) bool {
	return os.SameFile(info, was) && info.Size() == was.Size() && info.ModTime().Equal(was.ModTime())
}

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
