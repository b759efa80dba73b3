package stream

import "time"

const (
	// drainingKept is how long a client remembers that a server has said
	// draining: by then it has long left.
	drainingKept = 10 * time.Minute
	// maxDraining bounds how many it remembers, the newest.
	maxDraining = 4096
)

// SaidDraining reports whether the server at addr has said within the last ten
// minutes that it is leaving, on any connection, and none was made to that
// address since.
func (c *Client) SaidDraining(addr string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.draining[addr]
	return ok && time.Since(at) < drainingKept
}

// saidDraining notes that the server at addr is leaving.
func (c *Client) saidDraining(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if _, ok := c.draining[addr]; !ok && len(c.draining) >= maxDraining {
		c.forgetDraining(now)
	}
	if c.draining == nil {
		c.draining = make(map[string]time.Time)
	}
	c.draining[addr] = now
}

// forgetDraining makes room for another address. The caller holds mu.
func (c *Client) forgetDraining(now time.Time) {
	oldest, since := "", now
	for addr, at := range c.draining {
		if now.Sub(at) >= drainingKept {
			delete(c.draining, addr)
		} else if !at.After(since) {
			oldest, since = addr, at
		}
	}
	if len(c.draining) >= maxDraining {
		delete(c.draining, oldest)
	}
}
