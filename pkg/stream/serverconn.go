package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// gone is why a stream ended that the client no longer wants. It wraps
// [context.Canceled], so that handlers need not tell it from the error of their
// context.
type gone struct{ text string }

func (g *gone) Error() string { return g.text }

func (*gone) Unwrap() error { return context.Canceled }

// The causes with which a handler's context ends because of its client. Both wrap
// [context.Canceled].
var (
	// ErrClientGone is the cause if the client has closed the connection, or the
	// connection was lost.
	ErrClientGone error = &gone{"client has closed the connection"}
	// ErrCancelled is the cause if the client has cancelled the request.
	ErrCancelled error = &gone{"client has cancelled the request"}
)

var errOver = fmt.Errorf("stream is over, nobody reads it any more: %w", context.Canceled)

// serverConn is one connection of a server: a goroutine that reads, one that
// writes, and one for each stream's handler.
type serverConn struct {
	srv      *Server
	peer     Peer
	conn     net.Conn
	host     netip.Addr      // for which the connection counts; invalid for none
	ctx      context.Context // of all handlers
	cancel   context.CancelCauseFunc
	handlers sync.WaitGroup
	writer   sync.WaitGroup
	heard    atomic.Int64 // when bytes last came, for lastHeard

	// Of the reader.
	lines  lineReader
	block  []byte       // whole lines that were not yet acted on
	spoken bool         // a whole line came
	queue  chan *queued // requests without a number

	w lineWriter // its mu guards what follows
	// streams are the running streams by number; at most one is unnumbered.
	streams map[int64]*serverStream
	// running is how many requests hold a place: their handlers have not
	// returned, even if the client has cancelled. It was last 0 at quiet.
	running int
	quiet   time.Time
	blocked int // how many sends are waiting
	tick    *time.Timer
	ticking bool
	onClose func(net.Conn) // called right before a fault's close; nil is a clean close
	// lingerUntil is until when lines may be on their way from the client of a
	// connection that was idle when it was closed.
	lingerUntil time.Time
}

func newServerConn(s *Server, conn net.Conn, host netip.Addr) *serverConn {
	c := &serverConn{srv: s, conn: conn, peer: Peer{Addr: conn.RemoteAddr()}, host: host, streams: make(map[int64]*serverStream), quiet: time.Now()}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.lines = lineReader{r: (*connReader)(c), max: cmpOr(s.MaxRequest, MaxLine), afford: s.afford}
	c.w.init(conn)
	return c
}

// serve runs the connection; its goroutines end it.
func (c *serverConn) serve() {
	keepAlive(c.conn)
	c.writer.Go(c.write)
	c.readOn()
}

// write runs the writer and closes the connection after it.
func (c *serverConn) write() {
	err := c.w.run()
	c.w.mu.Lock()
	onClose, until := c.onClose, c.lingerUntil
	c.w.mu.Unlock()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		c.cancel(ErrClientGone) // the reader may be waiting for a handler
	}
	if until.IsZero() {
		until = time.Now().Add(lingerTime)
	}
	switch {
	case onClose != nil:
		onClose(c.conn)
	case err == nil && time.Until(until) > 0 && closeWrite(c.conn) == nil:
		// Closing with unread lines of the client would send a reset, which may
		// overtake what was written. So the reader goes on until the client closes
		// too, for a while.
		if c.conn.SetReadDeadline(until) == nil {
			return
		}
	}
	c.conn.Close() // also ends the reader
}

// closeWrite sends a FIN.
func closeWrite(conn net.Conn) error {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// waitRoom waits until the client has read enough to be sent more lines that need
// no turn: starts, ends and refusals, a few of which may overfill the buffer. A
// client that asks faster than it reads is not read from. The caller holds w.mu.
func (c *serverConn) waitRoom(q *waiter) {
	for c.w.open() && c.w.over >= turnBytes {
		c.startTicks() // they see whether it reads at all
		c.w.turns.wait(q)
	}
}

// say adds a line that belongs to no running stream.
func (c *serverConn) say(number int64, event, comment string) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	var q waiter
	q.init(&c.w.mu)
	c.waitRoom(&q)
	if c.w.open() {
		buf := appendEvent(c.w.buf, appendPrefix(nil, number), event, comment)
		n := len(buf) - len(c.w.buf)
		c.w.buf = buf
		c.w.addedBy(&q, n)
	}
	c.w.passOn(&q)
}

// over notes that a request no longer holds a place. The caller holds w.mu.
func (c *serverConn) over() {
	if c.running--; c.running == 0 {
		c.quiet = time.Now()
	}
}

// leaveIfIdle closes the connection of a server that is leaving, if it is idle, and
// reports whether it is. The client is told, so that a request on its way counts as
// not taken.
func (c *serverConn) leaveIfIdle() bool {
	since, idle := c.idleSince()
	if !idle {
		return false
	}
	c.w.mu.Lock()
	c.lingerUntil = since.Add(lingerTime)
	c.w.mu.Unlock()
	c.handBack()
	c.close(true, ErrClosed)
	return true
}

// handBack ends every running stream with draining, says the same of the whole
// connection, and returns how many streams it ended.
func (c *serverConn) handBack() int {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	n := 0
	for _, st := range c.streams {
		if !st.done {
			st.last(ErrDraining)
			st.cancel(ErrDraining)
			n++
		}
	}
	// A request that is on its way was not taken either. A person who asked
	// without a number was just told so.
	if c.streams[unnumbered] == nil && c.w.open() {
		c.w.buf = appendEvent(c.w.buf, appendPrefix(nil, unnumbered), eventDraining, ErrDraining.Error())
		c.w.added()
	}
	return n
}

// close ends the connection, after writing what waits if flush is set, and
// tells the handlers why.
func (c *serverConn) close(flush bool, why error) {
	c.w.stop(flush)
	if !flush {
		// A write to a client that takes nothing may be under way.
		_ = c.conn.SetWriteDeadline(time.Now()) // best effort: without it the close takes longer
	}
	c.cancel(why)
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	for _, st := range c.streams {
		st.abandon()
	}
	if c.tick != nil {
		c.tick.Stop()
	}
}

// idleSince returns since when nothing has happened on the connection, and
// whether it is idle.
func (c *serverConn) idleSince() (time.Time, bool) {
	heard := lastHeard(c.heard.Load())
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	idle := c.running == 0 && len(c.w.buf) == 0 && !c.w.writing && c.w.open()
	if heard.After(c.quiet) {
		return heard, idle
	}
	return c.quiet, idle
}

// drop closes the connection if nothing runs on it. A request that is on its
// way then finds the connection closed before its first line, as on any
// connection that was idle.
func (c *serverConn) drop() bool {
	c.w.mu.Lock()
	idle := c.running == 0 && c.w.open()
	if idle {
		c.w.fail(net.ErrClosed)
	}
	c.w.mu.Unlock()
	if idle {
		c.conn.Close()
	}
	return idle
}

// pingInterval is how long a connection with running streams may be silent
// before the server pings. Clients give up after three times as long.
const pingInterval = 5 * time.Second

// pingAt returns when a connection that is silent since last pings: at the last
// whole second within the interval, so that silent connections ping together
// and wake both processes once, instead of each at its own time.
func pingAt(last time.Time) time.Time {
	at := last.Add(pingInterval)
	return at.Add(-time.Duration(at.Nanosecond()))
}

// startTicks starts the timer that looks after the connection while anything
// runs on it or waits for it. The caller holds w.mu.
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

// lookAfter is called by the timer. It pings if nothing else was written, and
// gives up on clients that do not read. One timer serves all streams: it looks
// at when something was last written, instead of being set again for each line.
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
		c.cancel(ErrClientGone)
		c.conn.Close() // which ends the write
		return
	}
	at, ping := pingAt(c.w.wrote), false
	if !at.After(now) {
		at, ping = pingAt(now), !busy && len(c.streams) > 0
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
	if ping && len(c.w.buf) == 0 {
		c.w.buf = appendEvent(c.w.buf, []byte{'{'}, eventPing, "")
		c.w.writeNow() // this goroutine has nothing else to do, and the next tick has one of its own
	}
}
