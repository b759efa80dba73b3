package openai

import (
	"context"
	"errors"
	"sync"
	"time"
)

// errSilent is why a request to an engine is cancelled that gives nothing.
var errSilent = errors.New("the engine is silent")

// clock cancels a request to an engine that gives no text for too long. The
// limit for the first text differs from that for further ones. A clock is safe
// for concurrent use.
type clock struct {
	cancel context.CancelCauseFunc

	mu       sync.Mutex
	timer    *time.Timer
	first    bool          // nothing came yet
	limit    time.Duration // of the current wait
	further  time.Duration // of each wait after the first
	began    time.Time     // when the current wait did
	deadline time.Time
	paused   time.Time // since when it stands still; zero if it runs
	rang     bool      // the timer rang while it stood still
	excused  bool      // this process stood still itself
	over     bool
}

// startClock starts a clock that waits for the first text.
func startClock(cancel context.CancelCauseFunc, first, further time.Duration) *clock {
	c := &clock{cancel: cancel, first: true, limit: first, further: further, began: time.Now()}
	c.deadline = c.began.Add(first)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer = time.AfterFunc(first, c.ring)
	return c
}

// stopTime is how late a timer rings in a process that did not run meanwhile
// (SIGSTOP, a frozen machine), and how long it then has to read what came.
const stopTime = time.Second

// ring cancels the request if the time is over.
func (c *clock) ring() {
	c.mu.Lock()
	defer c.mu.Unlock()
	late := time.Since(c.deadline)
	switch {
	case c.over:
		return
	case !c.paused.IsZero():
		c.rang = true
		return
	case late < 0: // another text came meanwhile
		c.timer.Reset(-late)
		return
	case late > stopTime && !c.excused:
		c.excused = true
		c.timer.Reset(stopTime)
		return
	}
	c.over = true
	c.cancel(errSilent)
}

// got notes that text or a call came.
func (c *clock) got() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.first, c.limit = false, c.further
	c.restart()
}

// progress notes that the engine reads a long prompt.
func (c *clock) progress() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first {
		c.restart()
	}
}

func (c *clock) restart() {
	before := c.deadline
	c.began, c.excused = time.Now(), false
	c.deadline = c.began.Add(c.limit)
	// The timer may ring in vain, which is cheaper than setting it for each text,
	// but not too late.
	if c.deadline.Before(before) {
		c.timer.Reset(c.limit)
	}
}

// pause makes the clock stand still.
func (c *clock) pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = time.Now()
}

// resume makes it run again.
func (c *clock) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	stood := time.Since(c.paused)
	c.paused = time.Time{}
	c.began, c.deadline = c.began.Add(stood), c.deadline.Add(stood)
	if c.rang {
		c.rang = false
		c.timer.Reset(max(time.Until(c.deadline), 0))
	}
}

// silence returns since when nothing came, for how long nothing may come, and
// whether nothing came at all.
func (c *clock) silence() (since time.Time, limit time.Duration, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.began, c.limit, c.first
}

// stop ends the clock.
func (c *clock) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	c.timer.Stop()
}
