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

// maxQueued is how many requests without a number may wait on a connection for
// the one that runs. Further ones wait in the socket.
const maxQueued = 16

// gone is why a stream ended whose client wants no more of it. It is
// [context.Canceled], so that a handler need not tell it from its context's error.
type gone string

func (g gone) Error() string { return string(g) }

func (gone) Is(target error) bool { return target == context.Canceled }

const (
	errClientGone gone = "client has closed the connection"
	errCancelled  gone = "client has cancelled the request"
)

var errOver = fmt.Errorf("stream is over, nobody reads it any more: %w", context.Canceled)

// serverConn is one connection of a server: a goroutine that reads, one that
// writes, and one for each stream's handler.
type serverConn struct {
	srv      *Server
	peer     Peer
	conn     net.Conn
	host     netip.Addr      // whom the connection counts for; invalid for nobody
	ctx      context.Context // of all handlers
	cancel   context.CancelCauseFunc
	handlers sync.WaitGroup
	writer   sync.WaitGroup
	heard    atomic.Int64 // when bytes came last, by the clock of lastHeard

	// Of the reader.
	lines  lineReader
	block  []byte       // whole lines that were read and not yet taken
	spoken bool         // a whole line came
	queue  chan *queued // requests without a number

	w lineWriter // its mu guards what follows
	// streams are those that run, by number; one at most is unnumbered.
	streams map[int64]*serverStream
	// running is how many requests hold a place: their handlers have not
	// returned, though the client may have cancelled. It was 0 last at quiet.
	running int
	quiet   time.Time
	blocked int // how many sends wait
	tick    *time.Timer
	ticking bool
	ending  ending
}

// queued is a request without a number that waits for the one before it.
type queued struct {
	req  Request
	came time.Time
	// taken is closed when its turn comes; nil for one that is small.
	taken chan struct{}
}

// ending is how a connection is closed once its last lines are written.
type ending int

const (
	endFIN  ending = iota
	endRST         // a fault
	endExit        // a fault: the process goes with it
)

func newServerConn(s *Server, conn net.Conn, host netip.Addr) *serverConn {
	c := &serverConn{srv: s, conn: conn, peer: Peer{Addr: conn.RemoteAddr()}, host: host, streams: make(map[int64]*serverStream), quiet: time.Now()}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.lines = lineReader{r: (*connReader)(c), max: cmpOr(s.MaxRequest, MaxLine), afford: s.afford}
	c.w.init(conn)
	return c
}

// serve runs the connection to its end, which end is told of.
func (c *serverConn) serve() {
	keepAlive(c.conn)
	c.writer.Go(c.write)
	c.readOn()
}

// write runs the writer and closes the connection after it.
func (c *serverConn) write() {
	err := c.w.run()
	c.w.mu.Lock()
	end := c.ending
	c.w.mu.Unlock()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		c.cancel(errClientGone) // the reader may wait for a handler
	}
	switch {
	case end == endExit:
		exit()
	case end == endRST:
		if tcp, ok := c.conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // best effort: the close below breaks the stream in any case
		}
	case err == nil && closeWrite(c.conn) == nil:
		// To close with lines of the client's unread would be a reset, which
		// may overtake what was written. The reader goes on until the client
		// closes too, for a while.
		if c.conn.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
			return
		}
	}
	c.conn.Close() // also ends the reader
}

// closeWrite sends FIN.
func closeWrite(conn net.Conn) error {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// request begins a request, or queues one that has no number.
func (c *serverConn) request(number int64, req Request) error {
	req.Peer = &c.peer
	var came time.Time
	if req.Timeout > 0 {
		came = time.Now()
	}
	if number != unnumbered {
		c.w.mu.Lock()
		_, taken := c.streams[number]
		c.w.mu.Unlock()
		if taken {
			return errors.New("stream number is in use")
		}
		if st := c.begin(number, req, came); st != nil {
			st.alone = true
			c.handlers.Add(1) // not Go, whose frames would be on each stack
			go st.run()
		}
		return nil
	}
	if c.queue == nil {
		c.queue = make(chan *queued, maxQueued)
		c.handlers.Go(c.runQueue)
	}
	q := &queued{req: req, came: came}
	if len(req.Data) > largeBuffer {
		q.taken = make(chan struct{}) // those behind it wait in the socket: they may be as large
	}
	select {
	case c.queue <- q:
	case <-c.ctx.Done():
		return nil
	}
	if q.taken != nil {
		select {
		case <-q.taken:
		case <-c.ctx.Done():
		}
	}
	return nil
}

// runQueue runs the requests without a number one after another.
func (c *serverConn) runQueue() {
	over := false
	defer func() {
		if !over { // a function of the user's has called runtime.Goexit
			c.handlers.Go(c.runQueue)
		}
	}()
	for q := range c.queue {
		if q.taken != nil {
			close(q.taken)
		}
		if c.ctx.Err() != nil {
			continue // nobody waits for the answer
		}
		if st := c.begin(unnumbered, q.req, q.came); st != nil {
			st.run()
		}
	}
	over = true
}

// waitRoom waits until the client has read enough to be sent more lines that need
// no turn: starts, ends and refusals, of which a few may overfill the buffer. Who
// asks faster than it reads stops being read. The caller holds w.mu.
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

// over notes that a request holds no place any more. The caller holds w.mu.
func (c *serverConn) over() {
	if c.running--; c.running == 0 {
		c.quiet = time.Now()
	}
}

// handBack ends every running stream with draining, says the same to whoever
// asks next, and returns how many streams ran.
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
	// without a number has just been told.
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
		// A write that is under way may be to a client that takes nothing.
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

// idleSince returns since when nothing has happened on a connection on which
// nothing runs.
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

// drop closes a connection if nothing runs on it. A request that is on its way
// finds the connection closed before its first line, as any that was idle for
// long may be.
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
