package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/request-migration/migrate/pkg/discovery"
)

// Config says where a [Store] is. The zero value is the default.
type Config struct {
	// Dir is made if it isn't there. The default is dynamo_store_kv in
	// [os.TempDir], which is Dynamo's.
	Dir string
	// Logger gets warnings about what doesn't belong in Dir and about records
	// that were lost. The default discards.
	Logger *slog.Logger

	timing timing // zero but in tests
}

// timing is how often things are done.
type timing struct {
	dead  time.Duration // age at which a record's owner is taken for dead
	touch time.Duration // between two touches of an owner
	scan  time.Duration // between two scans for watches, when nothing tells of a change
	stray time.Duration // age at which a temporary file has been left behind
}

func standardTiming() timing {
	return timing{
		dead:  10 * time.Second, // Dynamo's, as is etcd's lease there
		touch: 3 * time.Second,  // two may fail before the record dies
		scan:  2 * time.Second,  // a lost event costs no more than this
		stray: time.Minute,      // writing one takes milliseconds
	}
}

// A Store is a [discovery.Store] in a directory.
// It is safe for concurrent use, also by many processes.
type Store struct {
	dir    string // absolute
	log    *slog.Logger
	timing timing
	notify *fsnotify.Watcher // nil where there is none
	done   chan struct{}     // closed by Close
	wg     sync.WaitGroup

	mu      sync.Mutex // guards what follows
	closed  bool
	buckets map[string]*bucket // by name

	closing  sync.Once
	closeErr error
}

// Open returns a store in the directory of c, which it makes if need be. It
// fails if the directory can't be made or written.
func Open(c Config) (*Store, error) {
	if c.Dir == "" {
		c.Dir = filepath.Join(os.TempDir(), "dynamo_store_kv")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.timing == (timing{}) {
		c.timing = standardTiming()
	}
	dir, err := filepath.Abs(c.Dir)
	if err == nil {
		err = writable(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("opening file store %s: the directory must be one that this user can make or write; choose another: %w", c.Dir, err)
	}
	s := &Store{
		dir:     dir,
		log:     c.Logger,
		timing:  c.timing,
		done:    make(chan struct{}),
		buckets: make(map[string]*bucket),
	}
	if s.notify, err = fsnotify.NewWatcher(); err != nil {
		s.log.Warn("no notice of changes in the file store, scanning it instead", "dir", dir, "err", err)
		s.notify = nil
	} else {
		s.wg.Go(s.readEvents)
	}
	return s, nil
}

// writable makes dir if it isn't there, and a file in it, which it removes.
func writable(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, tempPrefix)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// Put implements [discovery.Store]. A key whose third and later segments need
// more than 255 bytes, with all but ASCII letters and digits taking three, is
// refused: file systems have no longer names.
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	if err := discovery.CheckRecord(key, value, ttl); err != nil {
		return nil, err
	}
	name, rest := bucketOf(key)
	file, err := fileName(rest)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", key, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b, err := s.bucket(name)
	if err != nil {
		return nil, err
	}
	return b.put(&lease{bucket: b, key: key, file: file, value: append([]byte(nil), value...), ttl: ttl})
}

// Watch implements [discovery.Store].
func (s *Store) Watch(ctx context.Context, prefix string) iter.Seq2[discovery.Snapshot, error] {
	return func(yield func(discovery.Snapshot, error) bool) {
		if err := discovery.CheckPrefix(prefix); err != nil {
			yield(discovery.Snapshot{}, err)
			return
		}
		if err := s.ended(ctx); err != nil {
			yield(discovery.Snapshot{}, err)
			return
		}
		name, _ := bucketOf(prefix)
		b, err := s.bucket(name)
		if err != nil {
			yield(discovery.Snapshot{}, err)
			return
		}
		b.watches.Add(1)
		defer b.watches.Add(-1)
		// Not what the last scan saw: others may have put records since.
		if err := b.scan(true); err != nil {
			yield(discovery.Snapshot{}, fmt.Errorf("watching %s: %w", prefix, err))
			return
		}
		b.retime() // the loop must know now when the next record expires
		s.follow(ctx, b, prefix, yield)
	}
}

func (s *Store) follow(ctx context.Context, b *bucket, prefix string, yield func(discovery.Snapshot, error) bool) {
	var last discovery.Snapshot
	for first := true; ; first = false {
		if err := s.ended(ctx); err != nil {
			yield(discovery.Snapshot{}, err)
			return
		}
		all, changed := b.set.Get()
		if snap := all.Under(prefix); first || !snap.Equal(last) {
			if !yield(snap, nil) {
				return
			}
			last = snap
		}
		select {
		case <-ctx.Done():
		case <-s.done:
		case <-changed:
		}
	}
}

func (s *Store) ended(ctx context.Context) error {
	select {
	case <-s.done:
		return discovery.ErrClosed
	default:
		return ctx.Err()
	}
}

// bucket returns the bucket of that name, with its loop running.
func (s *Store) bucket(name string) (*bucket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, discovery.ErrClosed
	}
	b, ok := s.buckets[name]
	if !ok {
		b = newBucket(s, name)
		s.buckets[name] = b
		s.wg.Go(b.loop)
	}
	return b, nil
}

// Close implements [discovery.Store].
func (s *Store) Close() error {
	s.closing.Do(func() { s.closeErr = s.close(true) })
	return s.closeErr
}

// close ends the store; with release false as if its process had died.
func (s *Store) close(release bool) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	close(s.done)
	var errs []error
	if s.notify != nil {
		errs = append(errs, s.notify.Close())
	}
	s.wg.Wait()
	for _, b := range s.buckets {
		errs = append(errs, b.close(release))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("closing file store %s: %w", s.dir, err)
	}
	return nil
}

// bucketOf splits a key or prefix after its second segment, which is where a
// directory's name ends and a file's begins.
func bucketOf(key string) (bucket, rest string) {
	first, rest, _ := strings.Cut(key, "/")
	second, rest, _ := strings.Cut(rest, "/")
	return first + "/" + second, rest
}

// shut closes what was only read, or is of no use any more.
func shut(c io.Closer) { _ = c.Close() }

// gone reports whether err says that a file isn't there.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
