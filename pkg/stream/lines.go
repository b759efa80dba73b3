package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

var errLineTooLong = fmt.Errorf("line is longer than %d bytes", MaxLine)

const (
	smallBuffer = 4 << 10  // what an idle connection holds
	largeBuffer = 64 << 10 // what a busy one reads at a time
	// maxSkip is how much of a line that is too long is read past, so that it
	// costs its stream and not the connection. It is as much as any request may
	// have; beyond it, to go on reading helps nobody.
	maxSkip = 32 << 20
)

// lineReader cuts what a connection delivers into whole lines. It is for one
// goroutine.
type lineReader struct {
	r   io.Reader
	max int // bytes of the longest line; 0 means MaxLine
	buf []byte
	// buf[pos:end] was read and not yet returned; no newline is in it.
	pos, end int
	skipped  int // bytes of a line that is being read past; 0 if none is
	err      error
}

// next returns one or more whole lines, each with its newline, valid until the
// call after. It returns io.EOF if the connection ended after a line, and
// io.ErrUnexpectedEOF if it ended within one. Of a line that is too long it
// returns the beginning with errLineTooLong, and reads past the rest when it is
// called again; without a beginning, errLineTooLong is the end.
func (l *lineReader) next() ([]byte, error) {
	for l.err == nil {
		l.makeRoom()
		n, err := l.r.Read(l.buf[l.end:])
		fresh := l.buf[l.end : l.end+n]
		l.end += n
		l.err = err
		if l.skipped > 0 {
			fresh = l.skip(fresh)
		}
		if i := bytes.LastIndexByte(fresh, '\n'); i >= 0 {
			block := l.buf[l.pos : l.end-len(fresh)+i+1]
			l.pos += len(block)
			return block, nil
		}
		if l.end-l.pos > cmpOr(l.max, MaxLine) {
			begin := l.buf[l.pos:l.end]
			l.skipped, l.pos = len(begin), l.end
			return begin, errLineTooLong
		}
	}
	if errors.Is(l.err, io.EOF) && (l.end > l.pos || l.skipped > 0) {
		return nil, io.ErrUnexpectedEOF
	}
	return nil, l.err
}

// skip drops what belongs to the line that is being read past from the bytes
// that were just read, and returns the rest.
func (l *lineReader) skip(fresh []byte) []byte {
	i := bytes.IndexByte(fresh, '\n')
	if i >= 0 {
		l.skipped, l.pos = 0, l.end-len(fresh)+i+1
		return fresh[i+1:]
	}
	l.pos = l.end
	if l.skipped += len(fresh); l.skipped > maxSkip {
		l.err = errLineTooLong
	}
	return nil
}

// makeRoom moves the unfinished line to the front of a buffer with space behind
// it. The buffer grows while reads fill it, and goes back when a long line is over.
func (l *lineReader) makeRoom() {
	rest := l.buf[l.pos:l.end]
	size := len(l.buf)
	switch {
	case size == 0:
		size = smallBuffer
	case len(rest) > size/2:
		size *= 2 // an unfinished line takes up most of it
	case l.end == size && size < largeBuffer:
		size *= 2 // the last read filled it: more is coming than fits
	case len(rest) < smallBuffer && size > largeBuffer:
		size = largeBuffer
	}
	if size != len(l.buf) {
		buf := make([]byte, size)
		l.end = copy(buf, rest)
		l.buf, l.pos = buf, 0
	} else if l.pos > 0 {
		l.end = copy(l.buf, rest)
		l.pos = 0
	}
}

// cutLine splits the first line, without its newline, from a block of whole ones.
func cutLine(block []byte) (line, rest []byte) {
	i := bytes.IndexByte(block, '\n')
	return block[:i], block[i+1:]
}
