package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

var (
	errLineTooLong = fmt.Errorf("line is longer than %d bytes", MaxLine)
	errNoRoom      = errors.New("no room for the rest of a line")
)

const (
	smallBuffer = 4 << 10  // of an idle connection
	largeBuffer = 64 << 10 // of a busy one: how much it reads at a time
	// maxSkip is how much of a line that is too long is skipped, so that it costs
	// its stream and not the connection. It is the most that any request may
	// have; reading on beyond that helps nobody.
	maxSkip = 32 << 20
)

// lineReader cuts a connection's bytes into whole lines. It is for one
// goroutine.
type lineReader struct {
	r   io.Reader
	max int // bytes of the longest line; 0 means MaxLine
	// afford, if set, is asked whether the buffer may grow by n bytes above that
	// of an idle connection, and is told, with n below 0, how many are given
	// back.
	afford func(n int) bool
	buf    []byte
	// buf[pos:end] was read and not yet returned; it has no newline.
	pos, end int
	skipped  int // bytes of the line being skipped; 0 if none is
	err      error
}

// next returns one or more whole lines, each with its newline, valid until the
// next call. It returns io.EOF if the connection ended after a line, and
// io.ErrUnexpectedEOF if it ended within one. If a line is too long it returns
// the beginning of it with errLineTooLong, and skips the rest at the next call;
// errLineTooLong without a beginning is final.
func (l *lineReader) next() ([]byte, error) {
	for l.err == nil {
		if !l.makeRoom() {
			l.err = errNoRoom
			break
		}
		n, err := l.r.Read(l.buf[l.end:])
		fresh := l.buf[l.end : l.end+n]
		l.end += n
		l.err = err
		if l.skipped > 0 {
			fresh = l.skip(fresh)
		}
		if i := lastNewline(fresh); i >= 0 {
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

// skip drops the part of fresh that belongs to the line being skipped, and
// returns the rest.
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
// it. The buffer grows while reads fill it, and shrinks after a long line. It
// returns false if the buffer has to grow and must not.
func (l *lineReader) makeRoom() bool {
	rest := l.buf[l.pos:l.end]
	size := len(l.buf)
	filled := l.end == size
	keep := largeBuffer
	if l.afford != nil {
		keep = smallBuffer
	}
	short := len(rest) > size-size/16 // on space: a read would bring little
	switch {
	case size == 0:
		size = smallBuffer
	case l.skipped > 0:
		size = min(size, keep)
	case short && size >= largeBuffer:
		size += size / 4 // by little, so that the buffer is not much longer than the line
	case short, filled && size < largeBuffer:
		size *= 2
	case len(rest) < keep/2 && size > keep && (!filled || size > largeBuffer):
		size = keep
	}
	size = max(min(size, cmpOr(l.max, MaxLine)+1), smallBuffer)
	if size > len(l.buf) && !l.charge(size) {
		if short {
			return false
		}
		size = len(l.buf) // growing would only have been faster
	}
	if size != len(l.buf) {
		if size < len(l.buf) {
			l.charge(size)
		}
		buf := make([]byte, size)
		l.end = copy(buf, rest)
		l.buf, l.pos = buf, 0
	} else if l.pos > 0 {
		l.end = copy(l.buf, rest)
		l.pos = 0
	}
	return true
}

// charge asks for a buffer of another size, or gives back what a smaller one
// saves.
func (l *lineReader) charge(size int) bool {
	n := size - max(len(l.buf), smallBuffer)
	return l.afford == nil || n == 0 || l.afford(n)
}

// close gives the buffer back. Nothing may be read afterwards.
func (l *lineReader) close() {
	l.charge(smallBuffer)
	l.buf, l.pos, l.end = nil, 0, 0
}

// cutLine splits the first line, without its newline, off a block of whole
// lines.
func cutLine(block []byte) (line, rest []byte) {
	i := bytes.IndexByte(block, '\n')
	return block[:i], block[i+1:]
}

// lastNewline returns where the last newline of b is, or -1. That a part of a long
// line has none is told many times sooner from its front.
func lastNewline(b []byte) int {
	if bytes.IndexByte(b, '\n') < 0 {
		return -1
	}
	return bytes.LastIndexByte(b, '\n')
}
