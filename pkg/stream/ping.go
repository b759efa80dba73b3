package stream

import "time"

// pingInterval is how long a server with running streams stays silent before it
// says that it lives. Clients give up after three times as long.
const pingInterval = 5 * time.Second

// startPings makes sure that a connection whose streams are silent says that
// the server lives. The caller holds w.mu.
func (c *serverConn) startPings() {
	switch {
	case c.pinging || !c.w.open():
		return
	case c.ping == nil:
		c.ping = time.AfterFunc(pingInterval, c.pingIfSilent)
	default:
		c.ping.Reset(pingInterval)
	}
	c.pinging = true
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
	silent := time.Since(c.w.wrote)
	if silent >= pingInterval {
		silent = 0
		if len(c.w.buf) == 0 {
			c.w.buf = appendEvent(c.w.buf, []byte{'{'}, eventPing, "")
			c.w.added()
		}
	}
	c.ping.Reset(pingInterval - silent)
}
