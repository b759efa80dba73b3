package stream

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"
)

var (
	errNoPlace = errors.New("connection takes no more streams")
	errIdle    = errors.New("idle")
)

// clientConn is one connection of a client. One goroutine reads and hands each
// stream its lines, another one writes.
type clientConn struct {
	client *Client
	addr   string
	conn   net.Conn
	w      lineWriter

	mu      sync.Mutex
	streams map[int64]*clientStream
	lastID  int64 // the number of the newest stream
	err     error // why it ended; set once
	retired bool  // takes no more streams, and ends with its last one
	// stray is how many bytes the server may still send for streams that this end
	// has cancelled, before it learns of that.
	stray    int
	alone    bool // its one stream shares it with no other
	watchdog *time.Timer
	watchAt  time.Time // when the watchdog runs next
	idle     time.Time // when the last stream ended
	busy     time.Time // when the first of the running streams began
	life     life
}

func newClientConn(client *Client, addr string, conn net.Conn) *clientConn {
	c := &clientConn{client: client, addr: addr, conn: conn, streams: make(map[int64]*clientStream)}
	c.w.init(conn)
	c.mu.Lock() // the watchdog may run at once
	defer c.mu.Unlock()
	c.idle = time.Now()
	idle := cmpOr(client.IdleTimeout, DefaultIdleTimeout)
	c.watchAt = c.idle.Add(idle)
	c.watchdog = time.AfterFunc(idle, c.watch)
	return c
}

// run serves the connection to its end and returns why it ended.
func (c *clientConn) run() error {
	var writer sync.WaitGroup
	writer.Go(func() {
		if c.w.run() != nil {
			// What the server sent before it went away may still be unread, so the
			// reader decides what this was, but soon.
			if c.conn.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
				c.conn.Close()
			}
		}
	})
	c.fail(c.read())
	writer.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// fail ends the connection and its streams for the reason err. Only the first
// call counts.
func (c *clientConn) fail(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = c.client.excuse(err)
	}
	why := c.err
	ended := c.streams
	c.streams = nil
	c.watchdog.Stop()
	c.mu.Unlock()
	// The streams come first, with a chance for their requests to go on: closing
	// the socket takes longer than all the rest.
	for _, st := range ended {
		st.end(why)
	}
	runtime.Gosched()
	c.w.stop(false)
	c.conn.Close()
}

// hasPlace reports whether the connection takes another stream; with alone,
// whether it has no other.
func (c *clientConn) hasPlace(alone bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.place(alone)
}

func (c *clientConn) place(alone bool) bool {
	most := cmpOr(c.client.MaxStreams, DefaultMaxStreams)
	if alone {
		most = 1
	}
	return c.err == nil && !c.retired && !c.alone && len(c.streams) < most
}

// ended returns why the connection ended, nil if it has not.
func (c *clientConn) ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// open registers a stream and sends its request. reused says that the
// connection has been used before.
func (c *clientConn) open(req *outgoing, reused bool) (*clientStream, error) {
	c.mu.Lock()
	if !c.place(req.alone()) {
		c.mu.Unlock()
		return nil, errNoPlace
	}
	c.lastID++
	st := newClientStream(c, c.lastID, req)
	st.reused, st.maybeStale = reused, reused && !c.life.lastByte.IsZero()
	st.before = c.life.bytes
	c.streams[st.number] = st
	c.alone = req.alone()
	if len(c.streams) == 1 {
		c.busy = time.Now()
		c.watchWithin(cmpOr(c.client.StallTimeout, DefaultStallTimeout))
	}
	c.mu.Unlock()

	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.w.open() {
		c.w.buf = appendRequest(c.w.buf, st.number, req.now())
		c.w.follow(&st.sent)
		if c.w.fits() {
			c.w.writeNow()
		} else {
			c.w.added()
		}
	}
	return st, nil
}

// forget removes a stream. If it still runs at the server and cancel is set,
// the server is told.
func (c *clientConn) forget(st *clientStream, cancel bool) {
	onItsWay := st.mayCome()
	c.mu.Lock()
	_, runs := c.streams[st.number]
	delete(c.streams, st.number)
	if runs && cancel {
		c.stray += onItsWay
	}
	last := runs && len(c.streams) == 0
	over := last && c.retired
	if last {
		c.alone = false
		c.idle = time.Now()
		c.watchWithin(cmpOr(c.client.IdleTimeout, DefaultIdleTimeout))
	}
	c.mu.Unlock()
	if runs && cancel {
		c.send(func(buf []byte) []byte { return appendEvent(buf, st.prefix, eventCancel, "") })
	}
	if over {
		c.fail(errNoPlace)
	}
}

// retire makes the connection take no more streams, after the server has not
// answered on it. Its streams may go on.
func (c *clientConn) retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retired = true
}

// send adds a short line about a stream. It never waits for room.
func (c *clientConn) send(add func([]byte) []byte) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.w.open() {
		c.w.buf = add(c.w.buf)
		c.w.added()
	}
}

// read hands out the server's lines until the connection ends.
func (c *clientConn) read() error {
	lines := lineReader{r: c}
	for {
		block, err := lines.next()
		switch {
		case errors.Is(err, errLineTooLong) && len(block) > 0:
			err = c.tooLong(block)
		case err != nil:
			err = readBreak(err)
		default:
			err = c.dispatch(block)
		}
		if err != nil {
			return err
		}
	}
}

// Read reads from the connection and notes that the server lives.
func (c *clientConn) Read(p []byte) (int, error) {
	n, err := c.conn.Read(p)
	if n > 0 {
		now, last := time.Now(), lastNewline(p[:n])
		c.mu.Lock()
		c.life.came(n, n-1-last, now)
		c.mu.Unlock()
	}
	return n, err
}

// dispatch gives whole lines to the streams whose numbers they bear.
// Consecutive lines of one stream are given at once.
func (c *clientConn) dispatch(block []byte) error {
	c.w.answered()
	run, runNumber := 0, int64(unnumbered) // block[:run] are lines of stream runNumber
	for run < len(block) {
		line, _ := cutLine(block[run:])
		number, err := streamNumber(line)
		if err != nil {
			// A line that begins with a stream's number only breaks that stream.
			if n, ok := leadingStream(line); ok {
				number, err = n, nil
			}
		}
		if err != nil {
			if err := c.deliver(runNumber, block[:run]); err != nil {
				return err
			}
			return badLine(line, err)
		}
		if number != runNumber {
			if err := c.deliver(runNumber, block[:run]); err != nil {
				return err
			}
			block, run, runNumber = block[run:], 0, number
		}
		run += len(line) + 1
		if number == unnumbered {
			if err := c.control(line); err != nil {
				return err
			}
			block, run = block[run:], 0
		}
	}
	return c.deliver(runNumber, block)
}

// deliver gives a stream its lines.
func (c *clientConn) deliver(number int64, lines []byte) error {
	st, err := c.receiver(number, lines)
	if st == nil {
		return err
	}
	c.client.pulse.moves()
	return st.push(lines)
}

// receiver returns the stream that lines are for, or nil if it is over.
func (c *clientConn) receiver(number int64, lines []byte) (*clientStream, error) {
	if len(lines) == 0 {
		return nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.life.linesFor(number)
	st := c.streams[number]
	if st == nil {
		c.stray -= len(lines)
	}
	if number > c.lastID || c.stray < 0 {
		return nil, badLine(lines, fmt.Errorf("no stream %d runs", number))
	}
	return st, nil
}

// tooLong breaks the stream to which a line that is too long belongs, given how
// the line begins. The rest of the line is skipped.
func (c *clientConn) tooLong(begin []byte) error {
	err := &Break{Kind: Protocol, Reason: errLineTooLong.Error()}
	number, ok := leadingStream(begin)
	if !ok {
		return err
	}
	c.w.answered()
	st, wrong := c.receiver(number, begin)
	if st == nil {
		return wrong
	}
	st.end(err)
	return nil
}

var errNotOpened = errors.New("no stream of that number was opened")

// control acts on a line that belongs to the connection.
func (c *clientConn) control(line []byte) error {
	if isPing(line) {
		return nil
	}
	f, err := decode(line)
	if err != nil {
		return badLine(line, err)
	}
	switch a := f.annotated(); f.Event {
	case eventPing:
	case eventError:
		return notUnderstood(a)
	case eventOverloaded, eventDraining, eventMisdirected:
		if f.Event == eventDraining {
			c.client.saidDraining(c.addr) // no stream may be there to notice
		}
		return said(a)
	case "", eventStart, eventEnd, eventUnresumable:
		return badLine(line, errors.New("no stream number"))
	default:
		if len(f.Data) > 0 {
			return badLine(line, errors.New("no stream number"))
		}
	}
	return nil // also for events of newer servers
}
