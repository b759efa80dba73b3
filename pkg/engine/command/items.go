package command

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/request-migration/migrate/pkg/stream"
)

// Items says how a program's output is divided into items.
type Items string

// The ways to divide an output.
const (
	// Lines: each line is an item, with its newline. A line that is longer than
	// an item may be, about 1 MiB, is divided.
	Lines Items = "lines"
	// Chunks: what can be read at once is an item. Characters are never divided.
	Chunks Items = "chunks"
	// JSON: each line is a JSON value, and its item is that value. Empty lines
	// are left out. A line that is not JSON in UTF-8, or is longer than an item may be, is
	// the request's own error.
	JSON Items = "json"
)

// AllItems returns the ways to divide an output.
func AllItems() []Items { return []Items{Lines, Chunks, JSON} }

// ParseItems parses the name of a way to divide an output.
func ParseItems(s string) (Items, error) {
	if !slices.Contains(AllItems(), Items(s)) {
		return "", fmt.Errorf("unknown items %q: valid are %s, %s, %s", s, Lines, Chunks, JSON)
	}
	return Items(s), nil
}

const (
	// maxItem is how many bytes the data of an item has at most, encoded: a line
	// of the wire less its other fields, with room to spare.
	maxItem = stream.MaxLine - 1024
	// readSize is how much is read at once: what a pipe holds. As an item it fits
	// even if each byte needs six.
	readSize = 64 << 10
	// firstRead is how much is read at once until a program writes more: most
	// write little at a time.
	firstRead = 4 << 10
)

// sink takes an output, piece by piece, and sends its items.
type sink struct {
	items Items
	send  func(stream.Annotated) error
	// item is what there is of the next item: a JSON string without its closing
	// quote for Lines and Chunks, a line for JSON.
	item []byte
	line int // of the output, counted from 1
}

// write takes what was read and returns how much of it is used: not the
// beginning of a character at its end.
func (s *sink) write(b []byte) (used int, err error) {
	all := len(b)
	for len(b) > 0 && err == nil {
		end := bytes.IndexByte(b, '\n') + 1
		whole := s.items != Chunks && end > 0
		if !whole {
			end = len(b) - incomplete(b)
		}
		part := b[:end]
		b = b[end:]
		switch {
		case len(part) == 0:
			return all - len(b), nil
		case s.items == JSON:
			err = s.collect(part)
		default:
			err = s.add(part)
		}
		if err == nil && (whole || s.items == Chunks) {
			err = s.flush()
		}
	}
	return all - len(b), err
}

// finish takes what is left when the output has ended: rest is the beginning of
// a character that did not come.
func (s *sink) finish(rest []byte) error {
	var err error
	if s.items == JSON {
		err = s.collect(rest)
	} else {
		err = s.add(rest)
	}
	if err != nil {
		return err
	}
	return s.flush()
}

// add adds text to the item, and sends it when it is full. Where it divides a
// text does not depend on how that was read.
func (s *sink) add(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	if len(s.item)+escaped*len(text) <= maxItem-len(`""`) {
		s.item = appendText(s.open(), text)
		return nil
	}
	for len(text) > 0 {
		var size int
		if room := maxItem - len(`""`) - len(s.item); room >= 64*escaped {
			size = whole(text, room/escaped) // as much as surely fits
		} else {
			_, size = utf8.DecodeRune(text)
		}
		began := len(s.item)
		s.item = appendText(s.open(), text[:size])
		if len(s.item) > maxItem-len(`"`) {
			next := bytes.Clone(s.item[began:])
			s.item = s.item[:began]
			if err := s.flush(); err != nil {
				return err
			}
			s.item = append(s.open(), next...)
		}
		text = text[size:]
	}
	return nil
}

// whole returns how many bytes of text, n or a few less, do not end inside a
// character.
func whole(text []byte, n int) int {
	if n >= len(text) {
		return len(text)
	}
	return n - incomplete(text[:n])
}

// open returns the item, begun.
func (s *sink) open() []byte {
	if len(s.item) == 0 {
		return append(s.item, '"')
	}
	return s.item
}

// collect adds a part of a line of JSON.
func (s *sink) collect(part []byte) error {
	if len(s.item)+len(part) > maxItem {
		return fmt.Errorf("line %d of the program's output is longer than the %d bytes of an item", s.line+1, maxItem)
	}
	s.item = append(s.item, part...)
	return nil
}

// flush sends the item, unless it is empty.
func (s *sink) flush() error {
	s.line++
	if s.items == JSON {
		s.item = bytes.TrimSpace(s.item)
	}
	if len(s.item) == 0 {
		s.item = s.item[:0]
		return nil
	}
	if s.items != JSON {
		s.item = append(s.item, '"')
	}
	err := s.send(stream.Annotated{Data: s.item})
	if s.items == JSON && err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("line %d of the program's output: %w", s.line, err)
	}
	s.item = s.item[:0]
	return err
}

// incomplete returns how many bytes at the end of b are the beginning of a
// character.
func incomplete(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if c := b[len(b)-n]; utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(b[len(b)-n:]) {
				return n
			}
			break
		}
	}
	return 0
}

// escaped is how many bytes one byte has at most in a JSON string.
const escaped = 6

// appendText appends text as part of a JSON string. Each byte that is not UTF-8
// becomes U+FFFD.
func appendText(dst, text []byte) []byte {
	for {
		n := plain(text)
		dst = append(dst, text[:n]...)
		if n == len(text) {
			return dst
		}
		text = text[n:]
		switch c := text[0]; {
		case c == '"', c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c < ' ':
			const hex = "0123456789abcdef"
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			r, size := utf8.DecodeRune(text)
			dst = utf8.AppendRune(dst, r)
			text = text[size:]
			continue
		}
		text = text[1:]
	}
}

// plain returns how many bytes at the beginning of text stand for themselves in
// a JSON string and are ASCII.
func plain(text []byte) int {
	n := 0
	for ; n+8 <= len(text); n += 8 {
		if special(binary.LittleEndian.Uint64(text[n:])) {
			break
		}
	}
	for n < len(text) && text[n] >= ' ' && text[n] < utf8.RuneSelf && text[n] != '"' && text[n] != '\\' {
		n++
	}
	return n
}

// special reports whether one of the eight bytes of w is a quote, a backslash,
// a control character or not ASCII. (The tests for a zero byte and for a byte
// below n are from Anderson's "Bit Twiddling Hacks".)
func special(w uint64) bool {
	const low, high = 0x0101010101010101, 0x8080808080808080
	quote, slash := w^'"'*low, w^'\\'*low
	return ((quote-low)|(slash-low)|(w-' '*low)|w)&high != 0
}
