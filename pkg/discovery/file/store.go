package file

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// Config says where a [Store] is. The zero value is the default.
type Config struct {
	// Dir is made once there is something to put. One that is named is used as
	// it is. The default is dynamo_store_kv in [os.TempDir], which is Dynamo's;
	// there any user may have made it first, so that it is refused unless it
	// belongs to this user, or this user is root, and only its owner can write
	// to it.
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
	sweep time.Duration // between two looks of an owner for what others have left
}

func standardTiming() timing {
	return timing{
		dead:  10 * time.Second, // Dynamo's, as is etcd's lease there
		touch: 3 * time.Second,  // two may fail before the record dies
		scan:  2 * time.Second,  // a lost event costs no more than this
		stray: time.Minute,      // writing one takes milliseconds
		sweep: time.Minute,      // the dead do no harm, but add up
	}
}

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

// A Store is a [discovery.Store] in a directory.
// It is safe for concurrent use, also by many processes.
type Store struct {
	dir    *directory
	clock  *clock
	keeper *keeper
	log    *slog.Logger
	timing timing
	done   chan struct{} // closed by Close
	wg     sync.WaitGroup

	mu       sync.Mutex // guards what follows
	closed   bool
	buckets  map[string]*bucket // those that are watched, by name
	notifier *notifier          // nil until there are watches, and where there is none
	told     map[string]told    // by bucket: what no longer needs to be

	deaf     sync.Once // says that notices can't be had
	closing  sync.Once
	closeErr error
}

var _ interface {
	discovery.Store
	discovery.Expirer
} = (*Store)(nil)

// Open returns a store in the directory of c. It neither makes nor writes
// anything, and fails only if what is there can't be a store.
func Open(c Config) (*Store, error) {
	standard := c.Dir == ""
	if standard {
		c.Dir = filepath.Join(os.TempDir(), "dynamo_store_kv")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.timing == (timing{}) {
		c.timing = standardTiming()
	}
	path, err := filepath.Abs(c.Dir)
	dir := &directory{path: path, standard: standard, log: c.Logger}
	if err == nil {
		err = dir.check()
	}
	if err != nil {
		return nil, fmt.Errorf("opening file store %s: %w", c.Dir, err)
	}
	clock := &clock{dir: dir, timing: c.timing, create: createFile}
	s := &Store{
		dir:     dir,
		clock:   clock,
		keeper:  newKeeper(dir, clock, c.Logger, c.timing),
		log:     c.Logger,
		timing:  c.timing,
		done:    make(chan struct{}),
		buckets: make(map[string]*bucket),
		told:    make(map[string]told),
	}
	s.wg.Go(func() { s.keeper.run(s.done) })
	return s, nil
}

// Put implements [discovery.Store]. If ctx ends first the record is not put, or
// removed again as soon as the file system allows. A key of more than 16 KiB is
// refused.
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	if err := discovery.CheckRecord(key, value, ttl); err != nil {
		return nil, err
	}
	if len(key) > maxKey {
		return nil, fmt.Errorf("key %.40s… has %d bytes, more than %d", key, len(key), maxKey)
	}
	if err := s.ended(ctx); err != nil {
		return nil, err
	}
	l, err := s.keeper.newLease(key, value, ttl)
	if err == nil {
		err = s.keeper.put(ctx, l)
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Expiry implements [discovery.Expirer], by the file system's clock: it is at most
// 10 s for a record that its owner keeps alive.
func (s *Store) Expiry(_ context.Context, key string) (time.Duration, error) {
	bucket, rest := bucketOf(key)
	name := fileName(rest)
	dir, err := s.dir.bucket(bucket)
	if dir == nil {
		return 0, err
	}
	defer shut(dir)
	info, err := dir.Lstat(name)
	if gone(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	content, err := readFile(dir, name, info)
	if gone(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	h, _, err := decode(content)
	if err != nil {
		return 0, err
	}
	// Where that clock can't be read, this machine's is the best there is.
	now, _ := s.clock.now()
	return max(s.timing.life(h.ttl())-now.since(info.ModTime()), 0), nil
}

// Watch implements [discovery.Store]. Where the file system's clock can't be
// read, as its disk is full or it may not be written, the sets are stale: who is
// alive is judged by this machine's clock then.
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
		b, err := s.watched(name)
		if err != nil {
			yield(discovery.Snapshot{}, err)
			return
		}
		defer b.leave()
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

// Close implements [discovery.Store].
func (s *Store) Close() error {
	s.closing.Do(func() { s.closeErr = s.close(true) })
	return s.closeErr
}

// close ends the store; with release false as if its process had died.
func (s *Store) close(release bool) error {
	s.mu.Lock()
	s.closed = true
	notifier := s.notifier
	s.mu.Unlock()
	close(s.done)
	if notifier != nil {
		shut(notifier)
	}
	s.wg.Wait()
	defer s.clock.close()
	if !release {
		return nil
	}
	if err := s.keeper.releaseAll(); err != nil {
		return fmt.Errorf("closing file store %s: %w", s.dir.path, err)
	}
	return nil
}
