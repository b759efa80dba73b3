package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// firstLineTimeout is how long a connection may send nothing before its first
// line. A client connects because it has a request, and sends it within a few
// round trips; this is many.
const firstLineTimeout = 10 * time.Second

var (
	errNoFirstLine  = fmt.Errorf("no request within %v", firstLineTimeout)
	errUnaffordable = fmt.Errorf("%w: it holds too many bytes of unfinished lines", ErrOverloaded)
)

// connReader reads from a serverConn's connection and notes when bytes came.
type connReader serverConn

// Read implements [io.Reader] for a lineReader.
func (r *connReader) Read(p []byte) (int, error) {
	c := (*serverConn)(r)
	if !c.spoken {
		_ = c.conn.SetReadDeadline(time.Now().Add(firstLineTimeout)) // fails only if it is closed
	}
	n, err := c.conn.Read(p)
	c.heard.Store(time.Now().UnixNano())
	return n, err
}

// lastHeard returns the time that connReader noted.
func lastHeard(unixNano int64) time.Time { return time.Unix(0, unixNano) }

// readOn reads to the end of the connection and then ends it. If a function of
// the user calls runtime.Goexit, another goroutine reads on.
func (c *serverConn) readOn() {
	returned := false
	defer func() {
		if !returned {
			c.srv.wg.Go(c.readOn)
		}
	}()
	err := c.read()
	returned = true
	c.end(err)
}

// end closes the connection that ended with err, and waits for its goroutines.
func (c *serverConn) end(err error) {
	c.lines.close()
	// Nobody reads what is pending, unless this end is the one that closes.
	clientGone := errors.Is(err, ErrClientGone)
	c.close(!clientGone, err)
	if !clientGone {
		_, _ = io.Copy(io.Discard, c.conn) // until write has closed the connection
	}
	if c.queue != nil {
		close(c.queue)
	}
	c.handlers.Wait()
	c.writer.Wait()
	c.conn.Close()
	c.srv.forget(c)
}

// read acts on the client's lines until the connection ends, with
// ErrClientGone, or the client breaks the rules.
func (c *serverConn) read() error {
	for {
		for len(c.block) > 0 {
			var line []byte
			line, c.block = cutLine(c.block)
			if err := c.take(line); err != nil {
				return c.sayEnd(err)
			}
		}
		block, err := c.lines.next()
		switch {
		case errors.Is(err, errLineTooLong):
			// The rest of the line is skipped if its beginning says to which stream
			// it belongs.
			if err := c.tooLong(block); err != nil {
				return c.sayEnd(err)
			}
		case errors.Is(err, errNoRoom):
			return c.sayEnd(errUnaffordable)
		case errors.Is(err, os.ErrDeadlineExceeded) && !c.spoken:
			return errNoFirstLine
		case err != nil:
			return ErrClientGone
		default:
			c.block = block
			c.hasSpoken()
		}
	}
}

// sayEnd tells the client why its connection ends.
func (c *serverConn) sayEnd(err error) error {
	event := eventError
	if errors.Is(err, ErrOverloaded) {
		event = eventOverloaded
	}
	c.say(unnumbered, event, err.Error())
	return err
}

// hasSpoken lifts the bound on the time to the first line.
func (c *serverConn) hasSpoken() {
	if c.spoken {
		return
	}
	c.spoken = true
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.w.open() { // a closing connection has a deadline of its own
		_ = c.conn.SetReadDeadline(time.Time{}) // fails only if it is closed
	}
}

// tooLong answers a line that is too long, given its beginning. Its error ends
// the connection.
func (c *serverConn) tooLong(line []byte) error {
	why := fmt.Errorf("line is longer than %d bytes", c.lines.max)
	number, ok := leadingStream(line)
	if !ok {
		return why
	}
	c.harm(number, why)
	return nil
}

// take acts on one line. Its error ends the connection.
func (c *serverConn) take(line []byte) error {
	if len(line) > c.lines.max {
		return c.tooLong(line)
	}
	if len(bytes.TrimSpace(line)) == 0 {
		return nil // a person has pressed the return key
	}
	if number, req, ok := plainRequest(line); ok {
		return c.request(number, req)
	}
	f, err := decodeLong(line)
	if err != nil {
		why := fmt.Errorf(`not a request: %w; one looks like {"data":"hello"}`, err)
		if number, ok := leadingStream(line); ok {
			c.harm(number, why)
		} else {
			c.say(unnumbered, eventError, why.Error()) // the client may do better next time
		}
		return nil
	}
	switch f.Event {
	case "":
		req, err := f.request()
		if err != nil {
			c.harm(f.number(), fmt.Errorf("not a request: %w", err))
			return nil
		}
		return c.request(f.number(), req)
	case eventCancel:
		c.cancelStream(f.number())
	case eventCredit:
		n, err := index(f.Event, f.ID)
		if err != nil {
			return err
		}
		c.grant(f.number(), n)
	case eventPing:
		c.pong(f.To)
	}
	return nil
}

// harm answers a line that cannot be understood, on the stream that it names.
// It ends that stream if it runs, as whatever the line said is lost.
func (c *serverConn) harm(number int64, why error) {
	c.w.mu.Lock()
	st := c.streams[number]
	if st != nil && number != unnumbered {
		st.giveUp(why)
		c.w.mu.Unlock()
		return
	}
	c.w.mu.Unlock()
	c.say(number, eventError, why.Error())
}

// pong answers a client's ping: the server lives, and is or is not the intended
// one.
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

// maxQueued is how many requests without a number may wait on a connection for
// the running one. Further ones wait in the socket.
const maxQueued = 16

// queued is a request without a number that waits for the previous one.
type queued struct {
	req  Request
	came time.Time
	// taken is closed when its turn comes; nil for a small one.
	taken chan struct{}
}

// request begins a request, or queues one without a number.
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
			c.handlers.Add(1) // not Go, whose frames would be on every stack
			go st.run()
		}
		return nil
	}
	if c.queue == nil {
		c.queue = make(chan *queued, maxQueued)
		c.handlers.Go(c.runQueue)
	}
	q := &queued{req: req, came: came}
	if len(req.Data) > largeBuffer || len(req.Prefix) > 0 {
		q.taken = make(chan struct{}) // later ones wait in the socket: they may be as large
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
		if !over { // a function of the user has called runtime.Goexit
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
