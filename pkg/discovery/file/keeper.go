package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// A keeper puts a store's records and keeps them alive, one goroutine for all of
// them. Its rounds look at these records alone and wait for no scan, so that a
// record's life does not hang on the number of others.
type keeper struct {
	dir    *directory
	clock  *clock
	log    *slog.Logger
	timing timing
	tasks  chan func()   // what run is to do
	done   chan struct{} // closed when run ends

	// What follows is run's, and after it releaseAll's.
	leases  map[string]*lease // by key
	outage  bool              // not all could be kept
	sweepAt time.Time
	swept   map[string]bool // buckets with records of ours, swept once

	mu   sync.Mutex // guards what follows
	ours map[string]bool
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

// run touches, and does what it is asked to, until done is closed.
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

// jitter returns half of d to d, so that those who have the same trouble don't
// all come back at once.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// do has run do the task. If ctx ends before it has begun, it is not done.
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

// put puts the record of l. If ctx ends first, it is as if it had not been put.
func (k *keeper) put(ctx context.Context, l *lease) error {
	result := make(chan error, 1)
	err := k.do(ctx, func() {
		err := k.publish(l, false)
		switch {
		case err != nil:
		case l.state.CompareAndSwap(putting, stands):
			k.leases[l.key] = l
			k.setOurs(l, l.ttl == 0)
		default:
			_ = k.remove(l) // or it expires
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
		err = <-result // on its way
	}
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("the directory must be one that this user can make or write: %w", err)
	}
	if err != nil {
		return fmt.Errorf("putting %s into %s: %w", l.key, k.dir.path, err)
	}
	return nil
}

// release forgets l and removes its record, unless another has been put since.
func (k *keeper) release(l *lease) error {
	if k.leases[l.key] != l {
		return nil
	}
	delete(k.leases, l.key)
	k.setOurs(l, false)
	return k.remove(l)
}

// remove removes the file of l, if its record is still l's own.
func (k *keeper) remove(l *lease) error {
	dir, err := k.dir.bucket(l.bucket)
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
	if !l.left(info) {
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

// releaseAll removes the records that were kept. run has ended.
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

func (k *keeper) setOurs(l *lease, ours bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ours {
		k.ours[l.bucket+"/"+l.file] = true
	} else {
		delete(k.ours, l.bucket+"/"+l.file)
	}
}

// round shows that the owner of the records that this store keeps is alive, and
// puts again those that are gone. It returns false if it could not for all.
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
			_ = k.release(l) // Release has told its caller how that can fail
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
		switch again, err := k.renew(dir, l); {
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

// tell logs how a round went, at warn level once an outage.
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

// renew touches the file of l, which takes no reading as long as it is as this
// store has left it. It returns true if the record was lost and is put again.
func (k *keeper) renew(dir *os.Root, l *lease) (lost bool, err error) {
	info, err := dir.Lstat(l.file)
	if err == nil && l.left(info) {
		if err = k.touch(dir, l, info); !errors.Is(err, errReplaced) {
			return false, err
		}
		info, err = dir.Lstat(l.file)
	}
	if gone(err) {
		return !l.replaced, k.putAgain(l)
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
		return false, k.takeBack(dir, l, info, found)
	}
	return false, k.yield(dir, l, info, found)
}

// touch sets the time of change of the file that info is of to the present. It
// does so by writing the first byte over itself: then it is the file system that
// says what the present is. What may not be written is put anew.
func (k *keeper) touch(dir *os.Root, l *lease, info fs.FileInfo) error {
	f, err := dir.OpenFile(l.file, os.O_WRONLY, 0)
	switch {
	case gone(err):
		return errReplaced
	case errors.Is(err, fs.ErrPermission):
		return k.publish(l, false)
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
func (k *keeper) putAgain(l *lease) error {
	if l.replaced && !l.free {
		l.free = true
		return nil
	}
	err := k.publish(l, true)
	if errors.Is(err, fs.ErrExist) {
		return nil // the next round sees whose it is
	}
	if err == nil {
		k.returned(l)
	}
	return err
}

// takeBack makes a record that another hand has changed or copied l's own again.
func (k *keeper) takeBack(dir *os.Root, l *lease, info fs.FileInfo, found found) error {
	if bytes.Equal(found.content, l.content) {
		err := k.touch(dir, l, info)
		if errors.Is(err, errReplaced) {
			return nil
		}
		if err == nil {
			k.returned(l)
		}
		return err
	}
	if err := k.publish(l, false); err != nil {
		return err
	}
	k.returned(l)
	k.log.Warn("a record of ours was changed by another hand, and is written again as it was", "dir", k.dir.join(l.bucket), "key", l.key)
	return nil
}

// yield leaves the key to another owner's record for as long as that is alive.
func (k *keeper) yield(dir *os.Root, l *lease, info fs.FileInfo, found found) error {
	now, err := k.clock.now()
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() && k.timing.isDead(now.since(info.ModTime()), found.ttl) {
		if err := removeDead(dir, l.file, info); err != nil {
			return err
		}
		l.free = true // its owner had time enough
		return k.putAgain(l)
	}
	if !l.replaced {
		l.replaced = true
		k.setOurs(l, false)
		k.log.Warn("another owner has put a record of ours anew: theirs stands, ours comes back when the key is free", "dir", k.dir.join(l.bucket), "key", l.key)
	}
	return nil
}

// returned notes that the record that stands is l's.
func (k *keeper) returned(l *lease) {
	if l.replaced {
		k.log.Info("a record of ours stands again", "dir", k.dir.join(l.bucket), "key", l.key)
	}
	l.replaced, l.free = false, false
	k.setOurs(l, true)
}

// publish writes the file of l. If it is to be new, the error is [fs.ErrExist]
// where there is one.
func (k *keeper) publish(l *lease, isNew bool) (err error) {
	for range 3 {
		// Should the directory be deleted under our feet, it is made again.
		if err = k.write(l, isNew); !gone(err) {
			break
		}
	}
	return err
}

// write makes the file under a temporary name and moves it into its place, so
// that nobody ever reads half of one. It is not synced to the disk: after a
// crash of the machine its owner is dead too.
func (k *keeper) write(l *lease, isNew bool) (err error) {
	dir, err := k.dir.makeBucket(l.bucket)
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
	if err := k.dir.giveAway(dir, temp); err != nil {
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

func tempName() string { return tempPrefix + strconv.FormatUint(rand.Uint64(), 16) }
