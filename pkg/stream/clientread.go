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
	lines := lineReader{r: c.conn}
	for {
		block, err := lines.next()
		if err != nil {
			return readBreak(err)
		}
		if err := c.dispatch(block); err != nil {
			return err
		}
	}
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
	return &Break{Kind: Reset, Reason: "connection lost before the end of the stream", Err: err}
}

// dispatch gives whole lines to the streams whose numbers they bear, those in a
// row for one stream at once.
func (c *clientConn) dispatch(block []byte) error {
	c.w.answered()
	c.mu.Lock()
	c.lastLine = time.Now()
	c.mu.Unlock()
	run, runNumber := 0, int64(unnumbered) // block[:run] are lines of stream runNumber
	for run < len(block) {
		line, _ := cutLine(block[run:])
		number, err := streamNumber(line)
		if err != nil {
			if err := c.deliver(runNumber, block[:run]); err != nil {
				return err
			}
			return c.protocol(line, err)
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
	if len(lines) == 0 {
		return nil
	}
	c.mu.Lock()
	st := c.streams[number]
	if st == nil {
		c.stray -= len(lines)
	}
	wrong := number > c.lastID || c.stray < 0
	c.mu.Unlock()
	switch {
	case wrong:
		return c.protocol(lines, fmt.Errorf("no stream %d runs", number))
	case st == nil:
		return nil
	}
	return st.push(lines)
}

// control acts on a line that belongs to the connection.
func (c *clientConn) control(line []byte) error {
	f, err := decode(line)
	if err != nil {
		return c.protocol(line, err)
	}
	a := Annotated{Comment: f.Comment}
	switch f.Event {
	case eventPing:
		return nil
	case eventOverloaded, eventDraining:
		return &Break{Kind: Kind(f.Event), Reason: a.comment()}
	case eventError:
		return &Break{Kind: Protocol, Reason: "server did not understand: " + a.comment()}
	}
	return c.protocol(line, errors.New("no stream number"))
}

// protocol is the break that the first line of lines is: the wire does not allow it.
func (c *clientConn) protocol(lines []byte, err error) error {
	line, _, _ := bytes.Cut(lines, []byte{'\n'})
	return &Break{Kind: Protocol, Reason: fmt.Sprintf("bad line %.60q", line), Err: err}
}
