package stream

import "time"

// pingInterval is how long a server with running streams stays silent at most
// before it says that it lives. Clients give up after three times as long.
const pingInterval = 5 * time.Second

// pingAt returns when a connection that is silent since last pings: at the last
// whole second within the interval, so that connections at rest ping together
// and wake both processes once, not each at its own time.
func pingAt(last time.Time) time.Time {
	at := last.Add(pingInterval)
	return at.Add(-time.Duration(at.Nanosecond()))
}

// startPings makes sure that a connection whose streams are silent says that
// the server lives. The caller holds w.mu.
func (c *serverConn) startPings() {
	if c.pinging || !c.w.open() {
		return
	}
	c.pinging = true
	in := time.Until(pingAt(time.Now()))
	if c.ping == nil {
		c.ping = time.AfterFunc(in, c.pingIfSilent)
	} else {
		c.ping.Reset(in)
	}
}

// pingIfSilent is what the timer runs. One timer does for all streams: it looks
// at what was written last instead of being set again at each line.
func (c *serverConn) pingIfSilent() {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if len(c.streams) == 0 || !c.w.open() {
		c.pinging = false
		return
	}
	now := time.Now()
	at := pingAt(c.w.wrote)
	if !at.After(now) {
		at = pingAt(now)
		if len(c.w.buf) == 0 {
			c.w.buf = appendEvent(c.w.buf, []byte{'{'}, eventPing, "")
			c.w.added()
		}
	}
	c.ping.Reset(at.Sub(now))
}
