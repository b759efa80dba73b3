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

// DefaultDir returns the directory of a store whose [Config] names none: Dynamo's,
// which is dynamo_store_kv in [os.TempDir].
func DefaultDir() string { return filepath.Join(os.TempDir(), "dynamo_store_kv") }

// A Config says where a [Store] is. The zero value is the default.
type Config struct {
	// Dir is the directory, which the first Put makes if it does not exist. A
	// directory that is named here is used as it is, with a warning if anybody can
	// write to it. The default is [DefaultDir], which any user of the machine may
	// have made first: it is refused if another user owns it, unless this user is
	// root, or if anybody but its owner can write to it.
	Dir string
	// Logger gets a warning for each file in Dir that is no record, and for records
	// that were lost. Details are at debug level. The default discards.
	Logger *slog.Logger

	timing timing // standardTiming if zero; tests set it
}

// timing is how often things are done.
type timing struct {
	dead  time.Duration // age at which a record's owner is taken for dead
	touch time.Duration // from one renewal of a record to the next
	scan  time.Duration // from one scan of a bucket to the next, without notice of a change
	stray time.Duration // age at which a temporary file's maker is taken for dead
	sweep time.Duration // from one sweep of all buckets to the next, on average
}

func standardTiming() timing {
	return timing{
		dead:  10 * time.Second, // Dynamo's, like its lease in etcd
		touch: 3 * time.Second,  // a record survives two failed renewals
		scan:  2 * time.Second,  // a lost notice delays a change by 2 s at most
		stray: time.Minute,      // writing a file takes milliseconds
		sweep: time.Minute,      // dead records do no harm, but add up
	}
}

// isDead reports whether a record of that age is dead. Its ttl is 0 if its owner
// keeps it alive. An age far below 0 was stamped by a clock that has been put back.
func (t timing) isDead(age, ttl time.Duration) bool {
	return age >= t.life(ttl) || -age > t.dead
}

// life returns how long a record stands without a renewal.
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
	done   chan struct{}  // closed by Close
	wg     sync.WaitGroup // the keeper, the buckets and the notifier

	mu       sync.Mutex // guards what follows
	closed   bool
	buckets  map[string]*bucket // those that are watched, by name
	notifier *notifier          // nil before the first watch, and if the system gives none
	told     map[string]told    // by bucket: the problems that have been logged

	deaf     sync.Once // guards the warning that there are no notices
	closing  sync.Once
	closeErr error
}

var _ interface {
	discovery.Store
	discovery.Expirer
} = (*Store)(nil)

// Open returns a store in the directory of c. It makes and writes nothing, and fails
// only if there is something in the directory's place that this user can't use.
func Open(c Config) (*Store, error) {
	standard := c.Dir == ""
	if standard {
		c.Dir = DefaultDir()
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

// Put implements [discovery.Store]. If ctx ends first, the record is not put, or it
// is removed again as soon as the file system allows. A key of more than 16 KiB is
// an error.
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

// Expiry implements [discovery.Expirer], by the file system's clock. For a record
// that its owner keeps alive it is 10 s at most.
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
	// If that clock can't be read, this machine's is the best there is.
	now, _ := s.clock.now()
	return max(s.timing.life(h.ttl())-now.since(info.ModTime()), 0), nil
}

// Watch implements [discovery.Store]. If the file system's clock can't be read,
// because the disk is full or read-only, records are judged by this machine's clock
// and the sets are marked stale.
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
		// The last scan is not enough: there may be newer records.
		if err := b.scan(true); err != nil {
			yield(discovery.Snapshot{}, fmt.Errorf("watching %s: %w", prefix, err))
			return
		}
		b.retime()
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

// close ends the store. With release false its records stay, as after a crash.
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
