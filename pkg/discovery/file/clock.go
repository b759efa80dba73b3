package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"
)

// A clock is that of the file system that a store is in. The files' times of
// change come from it, which over a network is another machine's.
//
// It is read by writing to a file of its own, the probe. That lies in the store's
// directory, which nobody lists and where no notice is asked for once there are
// records, and has no name as long as the system allows that.
type clock struct {
	dir    *directory
	timing timing
	create func(dir *os.Root, name string) (*os.File, error) // createFile but in tests

	mu     sync.Mutex  // guards what follows
	probe  *os.File    // nil until it is needed
	named  bool        // the system keeps the name of an open file
	in     fs.FileInfo // the directory that probe was made in
	last   reading     // zero before the first
	jump   jump        // the latest
	closed bool
}

// A reading is what the clock said at a moment of this machine's.
type reading struct{ clock, machine time.Time }

// A jump is time that the clock has skipped, or shown twice: it was set, or the
// machine was suspended. Nobody could touch a file in it.
type jump struct {
	at time.Time // what the clock showed before it, or would have without it
	by time.Duration
}

// A moment is a time by which files are judged.
type moment struct {
	time time.Time
	jump jump // zero if there was none lately
}

// since returns how long ago the clock showed t, as far as files could be
// touched since: less than 0 if it is still to come.
func (m moment) since(t time.Time) time.Duration {
	age := m.time.Sub(t)
	before := m.jump.by > 0 && !t.After(m.jump.at) || m.jump.by < 0 && t.After(m.time)
	if before {
		age -= m.jump.by
	}
	return age
}

// now reads the clock. If it can't, it returns this machine's time beside the
// error.
func (c *clock) now() (moment, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := c.read()
	if err != nil {
		c.last, c.jump = reading{}, jump{} // of a clock that this one has nothing to do with
		// Without the probe's name, which is another each time: the same trouble
		// is to read the same.
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			err = e.Err
		}
		return moment{time: time.Now()}, fmt.Errorf("reading the file system's clock by writing to %s: %w", c.dir.path, err)
	}
	return c.observe(reading{clock: t, machine: time.Now()}), nil
}

// observe compares a reading with the last one. Its machine's time is monotonic.
func (c *clock) observe(r reading) moment {
	last := c.last
	c.last = r
	if !last.clock.IsZero() {
		expected := last.clock.Add(r.machine.Sub(last.machine))
		// Owners have a margin of more than half the time until they are dead.
		if by := r.clock.Sub(expected); by.Abs() > c.timing.dead/2 {
			c.jump = jump{at: expected, by: by}
		}
	}
	// By then who lives has touched what is theirs.
	if r.clock.Sub(c.jump.at.Add(c.jump.by)) > c.timing.dead {
		c.jump = jump{}
	}
	return moment{time: r.clock, jump: c.jump}
}

// read returns the time of change of the probe, which it writes to.
func (c *clock) read() (time.Time, error) {
	if c.closed {
		return time.Time{}, os.ErrClosed
	}
	in, err := os.Stat(c.dir.path)
	if err != nil {
		return time.Time{}, err
	}
	if c.probe == nil || !os.SameFile(in, c.in) {
		c.drop()
		if err := c.open(); err != nil {
			return time.Time{}, err
		}
		c.in = in
	}
	if err := writeFirst(c.probe, '\n'); err != nil {
		c.drop()
		return time.Time{}, err
	}
	info, err := c.probe.Stat()
	if err != nil {
		c.drop()
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// open makes the probe, and removes what others that were killed have left.
func (c *clock) open() error {
	root, err := c.dir.open()
	if err != nil {
		return err
	}
	defer shut(root)
	name := tempName()
	f, err := c.create(root, name)
	if err != nil {
		return err
	}
	c.named = root.Remove(name) != nil // Windows would refuse
	c.probe = f
	names, err := readNames(root)
	if err == nil {
		if info, err := f.Stat(); err == nil {
			c.dir.sweepStrays(root, names, moment{time: info.ModTime()}, c.timing.stray)
		}
	}
	return nil
}

// close ends the use of the clock.
func (c *clock) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.drop()
}

// drop gives up the probe, so that the next reading makes another. c.mu is held.
func (c *clock) drop() {
	if c.probe == nil {
		return
	}
	shut(c.probe)
	if c.named {
		_ = os.Remove(c.probe.Name()) // or others sweep it
	}
	c.probe = nil
}
