package file

import (
	"context"
	"time"
)

// Left returns how long the record under key stands unless its owner touches
// it, by the file system's clock: 0 if it isn't there.
func (s *Store) Left(_ context.Context, key string) (time.Duration, error) {
	name, rest := bucketOf(key)
	file, err := fileName(rest)
	if err != nil {
		return 0, err
	}
	b, err := s.bucket(name)
	if err != nil {
		return 0, err
	}
	b.scanMu.Lock() // the probe is the scan's
	defer b.scanMu.Unlock()
	dir, err := b.openThere()
	if dir == nil {
		return 0, err
	}
	defer shut(dir)
	info, err := dir.Lstat(file)
	if gone(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	now, err := b.now(dir)
	if err != nil {
		return 0, err
	}
	return max(s.timing.dead-now.Sub(info.ModTime()), 0), nil
}
