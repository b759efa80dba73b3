package stream

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"time"
)

const (
	// staleAfter is how long a kept connection may bring no byte after a request
	// was written to it before it counts as forgotten by a middlebox. A server
	// acknowledges a request at once.
	staleAfter = time.Second
	// secondLook is how much longer a late timer waits. In that time the reader
	// takes what is in the socket (a busy runtime looks there every 10 ms).
	secondLook = 20 * time.Millisecond
	// lateTimer is by how much a timer is late, at least, if the process could
	// not run when it was due.
	lateTimer = time.Millisecond
	// maxBefore is how many bytes may arrive between a request and its start
	// while long lines keep coming. It is more than a server and the sockets
	// between may have held before the request (TCP's buffers grow to 6 MiB and 4
	// MiB).
	maxBefore = 16 << 20
	// slowest is how many bytes a second a long line brings at least: a modem's
	// speed. Nobody sends long lines over slower links.
	slowest = 4 << 10
)

// life is what a connection shows of the other end. The connection's mu guards
// it.
type life struct {
	bytes    int64     // that have come
	lastByte time.Time // when the latest byte came; zero if none did
	lastPart time.Time // when bytes last came that ended no line
	part     int       // bytes of the line that is coming in
	lastLong time.Time // when bytes of a long line last came
	// work is when the latest lines of an answer came, and ofStream their stream;
	// otherWork is when the latest lines of another stream came.
	work, otherWork time.Time
	ofStream        int64
}

// came notes that n bytes have come, of which the last part end no line.
func (l *life) came(n, part int, now time.Time) {
	l.bytes += int64(n)
	l.lastByte = now
	if part == n {
		l.lastPart = now
		part += l.part
	}
	if l.part = part; part >= longPiece {
		l.lastLong = now
	}
}

// linesFor notes that lines have come for a stream.
func (l *life) linesFor(number int64) {
	if number != l.ofStream {
		l.otherWork, l.ofStream = l.work, number
	}
	l.work = l.lastByte
}

// besides returns when something last came that a stream's own lines may have
// been queued behind: lines of others, or a part of a line. Pings are neither.
func (l *life) besides(number int64) time.Time {
	if l.ofStream == number {
		return latest(l.otherWork, l.lastPart)
	}
	return latest(l.work, l.lastPart)
}

// sending returns when the connection last took some of what it is being given;
// zero if it has taken everything.
func (c *clientConn) sending(now time.Time) time.Time {
	c.w.mu.Lock()
	written, begun, at := c.w.written, c.w.begun, c.w.tookAt
	c.w.mu.Unlock()
	if written < begun {
		return at
	}
	// A connection on which this lasts is given up by the system.
	if c.unacknowledged() > 0 {
		return now
	}
	return time.Time{}
}

// unacknowledged returns how many bytes the system has accepted and not yet
// brought to the other end, if it says so.
func (c *clientConn) unacknowledged() int {
	conn := c.conn
	if over, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = over.NetConn()
	}
	if conn, ok := conn.(syscall.Conn); ok {
		return unacknowledged(conn)
	}
	return 0
}

// watchWithin makes the watchdog run within d. The caller holds mu.
func (c *clientConn) watchWithin(d time.Duration) {
	if at := time.Now().Add(d); c.watchAt.After(at) {
		c.watchAt = at
		c.watchdog.Reset(d)
	}
}

// watch ends the connection if its streams have stalled, or if it has been idle
// for too long. One timer serves both and all streams: it looks at times that
// are kept anyway, instead of being set again with each line.
func (c *clientConn) watch() {
	now := time.Now()
	woke := c.client.pulse.wokeAt(now)
	sending := c.sending(now)
	c.mu.Lock()
	since, bound := c.idle, cmpOr(c.client.IdleTimeout, DefaultIdleTimeout)
	err := errIdle
	if len(c.streams) > 0 {
		since = latest(c.life.lastByte, c.busy, woke, sending)
		bound = cmpOr(c.client.StallTimeout, DefaultStallTimeout)
		err = &Break{Kind: Stalled, Reason: fmt.Sprintf("no byte for %v", bound), NoShare: bound < DefaultStallTimeout}
	}
	left := bound - now.Sub(since)
	switch {
	case c.err != nil:
	case left > 0:
		c.watchAt = now.Add(left)
		c.watchdog.Reset(left)
	default:
		c.err = c.client.excuse(err) // before mu is released: no stream may begin now
	}
	c.mu.Unlock()
	if left <= 0 {
		c.fail(err)
	}
}

// patience is how long a stream waits for what comes next: first the start,
// then each item. It belongs to the caller's goroutine.
type patience struct {
	asked      time.Time // when the request was given to the connection
	timer      *time.Timer
	due        time.Time // when the timer runs out
	expired    bool      // the timer has run out, and the lines that came by then are being read
	looked     bool      // the second look is over
	maybeStale bool      // the connection was kept, and has brought no byte since the request
	before     int64     // bytes that had come on the connection before the request
	unsent     int       // bytes of a long request that were unacknowledged when last seen
	itemAt     time.Time // when the latest item came, or the start
}

// startWaiting begins to wait for the start.
func (st *clientStream) startWaiting() {
	bound := cmpOr(st.conn.client.StartTimeout, DefaultStartTimeout)
	if st.maybeStale {
		bound = min(bound, staleAfter)
	}
	if st.req.size > longPiece {
		st.unsent = st.req.size
	}
	st.asked = time.Now()
	st.due = st.asked.Add(bound)
	st.timer = time.NewTimer(bound)
}

// waitForItem begins to wait for the next item.
func (st *clientStream) waitForItem() {
	st.expired, st.looked = false, false
	bound := st.conn.client.ItemTimeout
	if bound <= 0 {
		st.timer.Stop()
		return
	}
	st.itemAt = time.Now()
	st.due = st.itemAt.Add(bound)
	st.timer.Reset(bound)
}

// wait waits until take has something. Lines that are there take precedence
// over a timer that has run out.
func (st *clientStream) wait(ctx context.Context) error {
	began := time.Now()
	defer func() { st.waited += time.Since(began) }()
	select {
	case <-st.wake:
		return nil
	case <-ctx.Done():
		return st.cancelled(ctx)
	case <-st.timer.C:
		if st.stopWaiting() {
			st.expired = true
			return nil
		}
		return st.late()
	}
}

// check is wait without waiting. If the timer has run out, the lines that came
// by then are read first.
func (st *clientStream) check(ctx context.Context) error {
	if ctx.Err() != nil {
		return st.cancelled(ctx)
	}
	if st.expired {
		return st.late()
	}
	select {
	case <-st.timer.C:
		st.expired = true
		if st.queued() {
			return nil
		}
		return st.late()
	default:
		return nil
	}
}

// late is called when the timer has run out. It returns the break that this is,
// or sets the timer again.
func (st *clientStream) late() error {
	now := time.Now()
	left, err := st.left(now)
	if late := now.Sub(st.due); left <= 0 && late >= lateTimer && !st.looked {
		st.looked, left = true, secondLook
	}
	if left <= 0 {
		return err
	}
	st.expired = false
	st.due = now.Add(left)
	st.timer.Reset(left)
	return nil
}

// left returns how much longer the stream waits, and the break that it is if
// that is nothing.
func (st *clientStream) left(now time.Time) (time.Duration, error) {
	client := st.conn.client
	woke := client.pulse.wokeAt(now)
	if st.started {
		bound := client.ItemTimeout
		err := &Break{Kind: Stalled, Reason: fmt.Sprintf("no item for %v", bound), NoShare: true}
		return bound - now.Sub(latest(st.itemAt, woke)), client.excuse(err)
	}
	bound := cmpOr(client.StartTimeout, DefaultStartTimeout)
	sent, all := st.sentAt(now)
	sent = latest(sent, woke)

	conn := st.conn
	conn.mu.Lock()
	lastByte, besides := conn.life.lastByte, conn.life.besides(st.number)
	lastLong, came := conn.life.lastLong, conn.life.bytes-st.before
	conn.mu.Unlock()
	if st.maybeStale = st.maybeStale && lastByte.Before(sent); st.maybeStale && all {
		if left := min(bound, staleAfter) - now.Sub(sent); left > 0 {
			return left, nil
		}
		return 0, errStale
	}
	behindLongLine := now.Sub(lastLong) < bound && came < maxBefore && came >= int64(now.Sub(sent).Seconds()*slowest)
	short := bound < DefaultStartTimeout
	left := bound - now.Sub(latest(sent, besides))
	if most := max(bound, cmpOr(client.StallTimeout, DefaultStallTimeout)) - now.Sub(sent); most < left && !behindLongLine {
		left, short = most, short || client.StallTimeout > 0 && client.StallTimeout < DefaultStallTimeout
	}
	err := &Break{Kind: Unresponsive, Reason: fmt.Sprintf("no start within %v", bound), NoShare: short}
	return left, client.excuse(err)
}

// sentAt returns when the connection had taken all of the request, or else its
// latest part. What the system is seen to bring to the other end counts too.
func (st *clientStream) sentAt(now time.Time) (at time.Time, all bool) {
	w := &st.conn.w
	w.mu.Lock()
	at, all = st.sent.at, !st.sent.at.IsZero()
	if !all {
		at = latest(st.asked, w.tookAt)
	}
	w.mu.Unlock()
	if all && st.unsent > 0 {
		n := st.conn.unacknowledged()
		if n < st.unsent {
			at = now
		}
		st.unsent = n
	}
	return at, all
}

// latest returns the latest of the times.
func latest(times ...time.Time) time.Time {
	var t time.Time
	for _, other := range times {
		if other.After(t) {
			t = other
		}
	}
	return t
}
