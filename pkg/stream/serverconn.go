package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// maxQueued is how many requests without a number may wait on a connection for
// the one that runs. Further ones wait in the socket.
const maxQueued = 16

var (
	errClientGone = errors.New("client has closed the connection")
	errCancelled  = errors.New("client has cancelled the request")
	errOver       = fmt.Errorf("stream is over, nobody reads it any more: %w", context.Canceled)
)

// serverConn is one connection of a server: a goroutine that reads, one that
// writes, and one for each stream's handler.
type serverConn struct {
	srv      *Server
	conn     net.Conn
	ctx      context.Context // of all handlers
	cancel   context.CancelCauseFunc
	handlers sync.WaitGroup
	queue    chan Request // those without a number; for the reader

	w lineWriter // its mu guards what follows
	// streams are those that run, by number; one at most is unnumbered.
	streams map[int64]*serverStream
	ping    *time.Timer
	pinging bool
	ending  ending
}

// ending is how a connection is closed once its last lines are written.
type ending int

const (
	endFIN  ending = iota
	endRST         // a fault
	endExit        // a fault: the process goes with it
)

func newServerConn(s *Server, conn net.Conn) *serverConn {
	c := &serverConn{srv: s, conn: conn, streams: make(map[int64]*serverStream)}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.w.init(conn)
	return c
}

// serve runs the connection to its end.
func (c *serverConn) serve() {
	var writer sync.WaitGroup
	writer.Go(c.write)
	err := c.read()
	// Nobody reads what is pending, unless this end is the one that closes.
	gone := errors.Is(err, errClientGone)
	c.close(!gone, err)
	if !gone {
		_, _ = io.Copy(io.Discard, c.conn) // until write has done what it says there
	}
	if c.queue != nil {
		close(c.queue)
	}
	c.handlers.Wait()
	writer.Wait()
	c.conn.Close()
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

// read takes the client's lines until the connection ends or the client breaks
// the rules; the first is errClientGone.
func (c *serverConn) read() error {
	lines := lineReader{r: c.conn}
	for {
		block, err := lines.next()
		if errors.Is(err, errLineTooLong) {
			c.reply(unnumbered, err.Error())
			return err
		}
		if err != nil {
			return errClientGone
		}
		for len(block) > 0 {
			var line []byte
			line, block = cutLine(block)
			if err := c.take(line); err != nil {
				c.reply(unnumbered, err.Error())
				return err
			}
		}
	}
}

// take acts on one line. Its error ends the connection.
func (c *serverConn) take(line []byte) error {
	if len(bytes.TrimSpace(line)) == 0 {
		return nil // somebody presses the return key
	}
	if number, req, ok := plainRequest(line); ok {
		return c.request(number, req)
	}
	f, err := decode(line)
	if err != nil {
		c.reply(unnumbered, `not a request: `+err.Error()+`; one looks like {"data":"hello"}`)
		return nil //nolint:nilerr // the client is told, and may do better
	}
	switch f.Event {
	case "":
		req, err := f.request()
		if err != nil {
			c.reply(f.number(), "not a request: "+err.Error())
			return nil //nolint:nilerr // as above
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
	}
	return nil
}

// request begins a request, or queues one that has no number.
func (c *serverConn) request(number int64, req Request) error {
	if number != unnumbered {
		c.w.mu.Lock()
		_, taken := c.streams[number]
		c.w.mu.Unlock()
		if taken {
			return errors.New("stream number is in use")
		}
		if st := c.begin(number, req); st != nil {
			c.handlers.Go(st.run)
		}
		return nil
	}
	if c.queue == nil {
		queue := make(chan Request, maxQueued)
		c.queue = queue
		c.handlers.Go(func() {
			for req := range queue {
				if c.ctx.Err() != nil {
					continue // nobody waits for the answer
				}
				if st := c.begin(unnumbered, req); st != nil {
					st.run()
				}
			}
		})
	}
	select {
	case c.queue <- req:
	case <-c.ctx.Done():
	}
	return nil
}

// waitRoom waits until the client has read enough to be sent more. Who asks
// faster than it reads stops being read. The caller holds w.mu.
func (c *serverConn) waitRoom() {
	for c.w.open() && c.w.full() {
		c.w.waitRoom()
	}
}

// reply adds an error line that belongs to no running stream.
func (c *serverConn) reply(number int64, comment string) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.waitRoom()
	if c.w.open() {
		c.w.buf = appendEvent(c.w.buf, appendPrefix(nil, number), eventError, comment)
		c.w.added()
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
	c.cancel(why)
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	for _, st := range c.streams {
		st.abandon()
	}
	if c.ping != nil {
		c.ping.Stop()
	}
}
