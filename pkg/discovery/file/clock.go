package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"
)

// A clock is that of a store's file system, which sets the files' modification
// times. Over a network it is another machine's.
//
// To read it, the clock writes to a file of its own, the probe, in the store's own
// directory: nobody lists that, and once there are records nobody asks for notices
// of it. The probe has no name where the system allows an open file without one.
type clock struct {
	dir    *directory
	timing timing
	create func(dir *os.Root, name string) (*os.File, error) // createFile but in tests

	mu     sync.Mutex  // guards what follows
	probe  *os.File    // nil until it is needed
	named  bool        // the probe has a name, because the system won't remove that of an open file
	in     fs.FileInfo // the directory that probe was made in
	last   reading     // zero before the first
	jump   jump        // the latest; zero if there was none lately
	closed bool
}

// A reading is one moment by the clock and by this machine's.
type reading struct{ clock, machine time.Time }

// A jump is time that the clock skipped or showed twice: somebody set it, or the
// machine was suspended. Nobody could renew a record in that time.
type jump struct {
	at time.Time // what the clock would have shown without the jump
	by time.Duration
}

// A moment is a reading of the clock that files' ages are counted from.
type moment struct {
	time time.Time
	jump jump // zero if there was none lately
}

// since returns the time from t until m, without a jump between the two: below 0 if
// t is still to come.
func (m moment) since(t time.Time) time.Duration {
	age := m.time.Sub(t)
	before := m.jump.by > 0 && !t.After(m.jump.at) || m.jump.by < 0 && t.After(m.time)
	if before {
		age -= m.jump.by
	}
	return age
}

// now reads the clock. With an error it returns this machine's time.
func (c *clock) now() (moment, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := c.read()
	if err != nil {
		c.last, c.jump = reading{}, jump{} // the next reading may be another file system's
		// Leave out the probe's name, which is random: the same trouble must read
		// the same.
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			err = e.Err
		}
		return moment{time: time.Now()}, fmt.Errorf("reading the file system's clock by writing to %s: %w", c.dir.path, err)
	}
	return c.observe(reading{clock: t, machine: time.Now()}), nil
}

// observe compares a reading with the last one by the machine's monotonic time.
func (c *clock) observe(r reading) moment {
	last := c.last
	c.last = r
	if !last.clock.IsZero() {
		expected := last.clock.Add(r.machine.Sub(last.machine))
		// A smaller jump kills nobody: a live owner's record is 3 s old at most, and
		// dead at 10 s.
		if by := r.clock.Sub(expected); by.Abs() > c.timing.dead/2 {
			c.jump = jump{at: expected, by: by}
		}
	}
	// By then every live owner has renewed its records since the jump.
	if r.clock.Sub(c.jump.at.Add(c.jump.by)) > c.timing.dead {
		c.jump = jump{}
	}
	return moment{time: r.clock, jump: c.jump}
}

// read writes to the probe and returns its modification time.
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

// open makes the probe, and removes those that killed processes left behind.
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
	c.named = root.Remove(name) != nil // Windows refuses
	c.probe = f
	names, err := readNames(root)
	if err == nil {
		if info, err := f.Stat(); err == nil {
			c.dir.sweepStrays(root, names, moment{time: info.ModTime()}, c.timing.stray)
		}
	}
	return nil
}

// close drops the probe. Later readings fail.
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
		_ = os.Remove(c.probe.Name()) // if that fails, a sweep removes it
	}
	c.probe = nil
}
