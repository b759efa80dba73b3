package kubernetes

import (
	"sync"
	"time"
)

// clockSlack is by how much two processes may differ about the API server's time: each
// is wrong by half a second at most, because the Date of an answer has whole seconds.
const clockSlack = time.Second

// A clock tells the API server's time, which writers and readers share whatever their
// own clocks show. It learns it from the Date of the server's answers, and counts on by
// this process's monotonic clock. Each answer bounds the difference to that clock to a
// second and the time of the request; together they bound it more closely. Until the
// first answer it tells this machine's time.
//
// A clock is safe for concurrent use.
type clock struct {
	began time.Time // by this process's monotonic clock
	base  time.Time // what this machine showed then

	mu        sync.Mutex // guards what follows
	known     bool
	low, high time.Duration // what to add to the base and the time since it began
}

func newClock() *clock {
	now := time.Now()
	return &clock{began: now, base: now.Round(0)}
}

// now returns the API server's time.
func (c *clock) now() time.Time {
	earliest, latest := c.bounds()
	return earliest.Add(latest.Sub(earliest) / 2)
}

// bounds returns between which times the API server's time is. What is to last for some
// time begins at the latest, and is over when even the earliest says so: then nobody sees
// its end too soon.
func (c *clock) bounds() (earliest, latest time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.base.Add(time.Since(c.began))
	return at.Add(c.low), at.Add(c.high)
}

// observe takes in that the server's clock showed date, in whole seconds, at some moment
// between sent and received.
func (c *clock) observe(sent, received, date time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	base := date.Sub(c.base)
	low := base - received.Sub(c.began)
	high := base + time.Second - sent.Sub(c.began)
	if c.known {
		if l, h := max(c.low, low), min(c.high, high); l <= h {
			low, high = l, h
		}
		// Otherwise a clock was set or has drifted, or another server answers: what
		// was learnt before no longer holds.
	}
	c.known, c.low, c.high = true, low, high
}
