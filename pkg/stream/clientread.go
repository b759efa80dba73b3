package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"
)

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
		now, last := time.Now(), bytes.LastIndexByte(p[:n], '\n')
		c.mu.Lock()
		c.life.came(n, n-1-last, now)
		c.mu.Unlock()
	}
	return n, err
}

// readBreak is the break that the end of a connection is.
func readBreak(err error) error {
	switch {
	case errors.Is(err, errLineTooLong):
		return &Break{Kind: Protocol, Reason: err.Error()}
	case errors.Is(err, io.EOF):
		return &Break{Kind: Truncated, Reason: "connection closed before the end of the stream"}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &Break{Kind: Truncated, Reason: "connection closed in the middle of a line"}
	}
	b := &Break{Kind: Reset, Reason: "connection lost before the end of the stream", Err: err}
	if isLocal(err) {
		b.Kind = Local
	}
	return b
}

// dispatch gives whole lines to the streams whose numbers they bear, those in a
// row for one stream at once.
func (c *clientConn) dispatch(block []byte) error {
	c.w.answered()
	run, runNumber := 0, int64(unnumbered) // block[:run] are lines of stream runNumber
	for run < len(block) {
		line, _ := cutLine(block[run:])
		number, err := streamNumber(line)
		if err != nil {
			// It harms the stream that it begins with, if it does, alone.
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

// tooLong breaks the stream that has been sent a line that is too long and
// begins like that. The rest of the line is read past.
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
			c.client.saidDraining(c.addr) // nobody else may be there to hear it
		}
		return said(a)
	case "", eventStart, eventEnd, eventUnresumable:
		return badLine(line, errors.New("no stream number"))
	default:
		if len(f.Data) > 0 {
			return badLine(line, errors.New("no stream number"))
		}
	}
	return nil // also what a newer server says
}

// notUnderstood is the break that an error line without a stream is.
func notUnderstood(a Annotated) *Break {
	return &Break{Kind: Protocol, Reason: "server did not understand: " + a.comment()}
}

// badLine is the break that the first line of lines is: the wire does not allow it.
func badLine(lines []byte, err error) *Break {
	line, _, _ := bytes.Cut(lines, []byte{'\n'})
	return &Break{Kind: Protocol, Reason: fmt.Sprintf("bad line %.60q", line), Err: err}
}
