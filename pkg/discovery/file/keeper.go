package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// A keeper puts a store's records and keeps them alive, with one goroutine for all.
// Its rounds look at these records alone and wait for no scan, so that other
// owners' records, however many, can't delay a renewal.
type keeper struct {
	dir    *directory
	clock  *clock
	log    *slog.Logger
	timing timing
	tasks  chan func()   // for run to do
	done   chan struct{} // closed when run ends

	// run alone uses what follows, and releaseAll after it has ended.
	leases  map[string]*lease // by key
	outage  bool              // the last round failed or found records lost
	sweepAt time.Time         // the next sweep of the buckets without records of this store
	swept   map[string]bool   // buckets with records of this store that have had their one sweep

	mu   sync.Mutex      // guards what follows
	ours map[string]bool // the files that this store keeps alive, as bucket/file
}

func newKeeper(dir *directory, clock *clock, log *slog.Logger, timing timing) *keeper {
	return &keeper{
		dir:     dir,
		clock:   clock,
		log:     log,
		timing:  timing,
		tasks:   make(chan func()),
		done:    make(chan struct{}),
		leases:  make(map[string]*lease),
		sweepAt: time.Now(),
		swept:   make(map[string]bool),
		ours:    make(map[string]bool),
	}
}

// run keeps the records alive and does tasks until done is closed.
func (k *keeper) run(done <-chan struct{}) {
	defer close(k.done)
	timer := time.NewTimer(k.timing.touch)
	defer timer.Stop()
	for {
		select {
		case <-done:
			return
		case task := <-k.tasks:
			task()
		case <-timer.C:
			began := time.Now()
			next := k.timing.touch
			if !k.round() {
				next = jitter(next)
			}
			timer.Reset(max(next-time.Since(began), next/10))
		}
	}
}

// jitter returns a random time from half of d to d, so that processes that failed
// together don't retry together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// do has run do the task. A task that has not begun when ctx ends is not done.
func (k *keeper) do(ctx context.Context, task func()) error {
	select {
	case k.tasks <- task:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-k.done:
		return discovery.ErrClosed
	}
}

// put puts the record of l. If ctx ends first, the record is not put, or removed
// again.
func (k *keeper) put(ctx context.Context, l *lease) error {
	result := make(chan error, 1)
	err := k.do(ctx, func() {
		err := l.publish(false)
		switch {
		case err != nil:
		case l.state.CompareAndSwap(putting, stands):
			k.leases[l.key] = l
			k.setOurs(l, l.ttl == 0)
		default:
			_ = l.remove() // if that fails, it expires
		}
		result <- err
	})
	if err != nil {
		return err
	}
	select {
	case err = <-result:
	case <-ctx.Done():
		if l.state.CompareAndSwap(putting, abandoned) {
			return ctx.Err()
		}
		err = <-result // the record stands: the result comes at once
	}
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("the directory must be one that this user can make or write: %w", err)
	}
	if err != nil {
		return fmt.Errorf("putting %s into %s: %w", l.key, k.dir.path, err)
	}
	return nil
}

// release forgets l and removes its record, unless the key was put again since.
func (k *keeper) release(l *lease) error {
	if k.leases[l.key] != l {
		return nil
	}
	delete(k.leases, l.key)
	k.setOurs(l, false)
	return l.remove()
}

// releaseAll removes the records that this store keeps. run has ended.
func (k *keeper) releaseAll() error {
	var errs []error
	for _, l := range k.leases {
		if l.ttl == 0 {
			errs = append(errs, k.release(l))
		}
	}
	return errors.Join(errs...)
}

// keeps reports whether the file is a record that this store keeps alive.
func (k *keeper) keeps(bucket, file string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ours[bucket+"/"+file]
}

// setOurs notes whether this store keeps the file of l alive.
func (k *keeper) setOurs(l *lease, ours bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ours {
		k.ours[l.bucket+"/"+l.file] = true
	} else {
		delete(k.ours, l.bucket+"/"+l.file)
	}
}

// round renews the records that this store keeps, and puts lost ones again. It
// returns false if that failed for some.
func (k *keeper) round() bool {
	dirs := make(map[string]*os.Root)
	defer func() {
		for _, dir := range dirs {
			shut(dir)
		}
	}()
	var lost int
	var errs []error
	for key, l := range k.leases {
		switch {
		case l.released.Load():
			_ = k.release(l) // Release has returned an error already
			continue
		case l.ttl > 0 && time.Now().After(l.end.Add(k.timing.dead)):
			delete(k.leases, key)
			continue
		case l.ttl > 0:
			continue
		}
		dir := dirs[l.bucket]
		if dir == nil {
			var err error
			if dir, err = k.dir.makeBucket(l.bucket); err != nil {
				errs = append(errs, err)
				continue
			}
			dirs[l.bucket] = dir
		}
		switch again, err := l.renew(dir); {
		case err != nil:
			errs = append(errs, err)
		case again:
			lost++
		}
	}
	k.tell(lost, errs)
	k.sweep(dirs)
	return len(errs) == 0
}

// tell logs how a round went: one warning for each outage.
func (k *keeper) tell(lost int, errs []error) {
	well := lost == 0 && len(errs) == 0
	switch {
	case well && k.outage:
		k.log.Info("records are kept alive again", "dir", k.dir.path)
	case well:
	case k.outage:
		k.log.Debug("records are still being lost", "dir", k.dir.path, "lost", lost, "failed", len(errs))
	case len(errs) > 0:
		k.log.Warn("records can't be kept alive", "dir", k.dir.path, "failed", len(errs), "err", errs[0])
	default:
		k.log.Warn("records were lost, and are written again", "dir", k.dir.path, "lost", lost)
	}
	k.outage = !well
}

// sweep removes dead records and strays, which nobody else does in a bucket that
// nobody watches. The buckets where this store keeps records, dirs, it sweeps once:
// each of them has as many owners, and so sweeps, as records. The others, whose
// owners come and go, it sweeps every minute or so.
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
		return // renewals have the same trouble and report it
	}
	for _, bucket := range buckets {
		if dirs[bucket] != nil {
			continue
		}
		dir, err := k.dir.bucket(bucket)
		if dir == nil || err != nil {
			continue // it is no directory, or gone
		}
		k.sweepBucket(bucket, dir)
		shut(dir)
	}
}

// sweepBucket removes the dead records of a bucket. It ignores failures: a watch of
// the bucket would report them.
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
		// Its header may say that it stands for longer.
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
