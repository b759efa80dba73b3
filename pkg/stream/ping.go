package stream

import (
	"errors"
	"time"
)

// pingInterval is how long a server with running streams stays silent at most
// before it says that it lives. Clients give up after three times as long.
const pingInterval = 5 * time.Second

// pong answers a client's ping: the server lives, and is or is not the one that
// was meant.
func (c *serverConn) pong(to string) {
	event, comment := eventPing, ""
	if err := c.srv.standing(to); err != nil {
		event, comment = eventMisdirected, err.Error()
		if errors.Is(err, ErrDraining) {
			event = eventDraining
		}
	}
	c.say(unnumbered, event, comment)
}

// pingAt returns when a connection that is silent since last pings: at the last
// whole second within the interval, so that connections at rest ping together
// and wake both processes once, not each at its own time.
func pingAt(last time.Time) time.Time {
	at := last.Add(pingInterval)
	return at.Add(-time.Duration(at.Nanosecond()))
}

// startTicks makes sure that somebody looks after a connection as long as
// anything runs on it or waits for it. The caller holds w.mu.
func (c *serverConn) startTicks() {
	if c.ticking || !c.w.open() {
		return
	}
	c.ticking = true
	in := time.Until(pingAt(time.Now()))
	if c.tick == nil {
		c.tick = time.AfterFunc(in, c.lookAfter)
	} else {
		c.tick.Reset(in)
	}
}

// lookAfter is what the timer runs. One timer does for all streams: it looks at
// what was written last instead of being set again at each line. It says that
// the server lives if nothing else did, and gives up on who does not read.
func (c *serverConn) lookAfter() {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	busy := c.w.writing || len(c.w.buf) > 0
	if len(c.streams) == 0 && !busy || !c.w.open() {
		c.ticking = false
		return
	}
	now := time.Now()
	bound := cmpOr(c.srv.SendTimeout, DefaultSendTimeout)
	if c.w.writing && now.Sub(latest(c.w.wrote, c.w.tookAt)) >= bound {
		c.w.fail(errNotReading)
		c.cancel(errClientGone)
		c.conn.Close() // which ends the write
		return
	}
	at := pingAt(c.w.wrote)
	if !at.After(now) {
		at = pingAt(now)
		if !busy && len(c.streams) > 0 {
			c.w.buf = appendEvent(c.w.buf, []byte{'{'}, eventPing, "")
			c.w.added()
		}
	}
	if c.blocked > 0 {
		for _, st := range c.streams {
			if st.blocked == 0 || c.w.muted {
				continue
			}
			if due := time.Unix(0, st.blocked).Add(bound); !due.After(now) {
				st.giveUp(errNotReading)
			} else if due.Before(at) {
				at = due
			}
		}
	}
	c.tick.Reset(at.Sub(now))
}
