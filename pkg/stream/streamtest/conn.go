package streamtest

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// bufferSize is how many bytes one end may send before the other one reads, about as many
// as between two sockets. With no buffer at all, as net.Pipe has it, two ends that both
// write before they read would wait for each other for ever.
const bufferSize = 64 << 10

// pipe returns the two ends of a connection.
func pipe(a, b address) (*conn, *conn) {
	out, back := newHalf(), newHalf()
	return &conn{in: back, out: out, local: a, remote: b}, &conn{in: out, out: back, local: b, remote: a}
}

// conn is one end of a connection.
type conn struct {
	in, out       *half
	local, remote address

	mu     sync.Mutex // guards reset
	reset  bool       // SetLinger(0) was called
	closed sync.Once
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.in.read(p)
	return n, c.failed("read", err)
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.out.write(p)
	return n, c.failed("write", err)
}

// Close ends both directions. As with a socket, the other end reads what was written
// before and then io.EOF, or an ECONNRESET if this end had something left to read.
func (c *conn) Close() error {
	c.closed.Do(func() {
		c.mu.Lock()
		reset := c.reset
		c.mu.Unlock()
		unread := c.in.leave()
		c.out.end(reset || unread, true)
	})
	return nil
}

// CloseWrite ends the direction to the other end, which reads what was written before and
// then io.EOF.
func (c *conn) CloseWrite() error {
	c.out.end(false, false)
	return nil
}

// SetLinger with 0 makes the other end see a reset when this one is closed, as
// [net.TCPConn.SetLinger] does. Nothing else is different: Close never waits.
func (c *conn) SetLinger(sec int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reset = sec == 0
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) SetReadDeadline(t time.Time) error {
	return c.failed("set", c.in.setDeadline(&c.in.reader, t))
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	return c.failed("set", c.out.setDeadline(&c.out.writer, t))
}

// failed returns err as a socket's error, which says what failed, and where.
func (c *conn) failed(op string, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return &net.OpError{Op: op, Net: network, Source: c.local, Addr: c.remote, Err: err}
}

// half is one direction of a connection: a bounded buffer between a reader and a writer.
type half struct {
	mu      sync.Mutex // guards all of it
	changed sync.Cond  // whatever of it changes
	buf     []byte     // written and not yet read; never longer than bufferSize
	reset   bool       // the reader gets an ECONNRESET in place of io.EOF
	reader  side
	writer  side
}

// side is what one end does to a half.
type side struct {
	gone     bool // it has closed
	ended    bool // of a writer: it writes no more
	late     bool // its deadline has passed
	deadline *time.Timer
}

func newHalf() *half {
	h := &half{}
	h.changed.L = &h.mu
	return h
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.reader.gone:
			return 0, net.ErrClosed
		case h.reader.late:
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case len(h.buf) > 0:
			n := copy(p, h.buf)
			h.buf = h.buf[:copy(h.buf, h.buf[n:])]
			h.changed.Broadcast()
			return n, nil
		case h.reset:
			return 0, syscall.ECONNRESET
		case h.writer.ended:
			return 0, io.EOF
		}
		h.changed.Wait()
	}
}

func (h *half) write(p []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.writer.gone:
			return n, net.ErrClosed
		case h.writer.late:
			return n, os.ErrDeadlineExceeded
		case h.writer.ended, h.reader.gone:
			return n, syscall.EPIPE
		case n == len(p):
			return n, nil
		}
		if room := bufferSize - len(h.buf); room > 0 {
			more := p[n:min(len(p), n+room)]
			h.buf = append(h.buf, more...)
			n += len(more)
			h.changed.Broadcast()
			continue
		}
		h.changed.Wait()
	}
}

// end notes that the writer writes no more, and is gone for good if it is closed.
func (h *half) end(reset, gone bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writer.ended = true
	h.writer.gone = h.writer.gone || gone
	h.reset = h.reset || reset
	if gone {
		h.writer.stop()
	}
	h.changed.Broadcast()
}

// leave notes that the reader is gone, and reports whether it has left anything unread.
func (h *half) leave() (unread bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reader.gone = true
	h.reader.stop()
	unread = len(h.buf) > 0
	h.buf = nil
	h.changed.Broadcast()
	return unread
}

// setDeadline sets the deadline of s, one of h's sides; the zero time is none.
func (h *half) setDeadline(s *side, t time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.gone {
		return net.ErrClosed
	}
	s.stop()
	s.late = false
	if t.IsZero() {
		return nil
	}
	left := time.Until(t)
	if left <= 0 {
		s.late = true
		h.changed.Broadcast()
		return nil
	}
	var timer *time.Timer
	timer = time.AfterFunc(left, func() {
		h.mu.Lock() // which also waits until timer is set
		defer h.mu.Unlock()
		if s.deadline == timer {
			s.late = true
			h.changed.Broadcast()
		}
	})
	s.deadline = timer
	return nil
}

// stop forgets the deadline. The half's mu is held.
func (s *side) stop() {
	if s.deadline != nil {
		s.deadline.Stop()
		s.deadline = nil
	}
}
