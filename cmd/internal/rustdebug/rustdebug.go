// Package rustdebug quotes text as Rust's Debug does.
package rustdebug

import (
	"slices"
	"strconv"
	"unicode/utf8"
)

// Quote quotes s as Rust's {:?} does for a str. See [Append].
func Quote(s string) string {
	return string(Append(make([]byte, 0, len(s)+len(`""`)), s))
}

// Append appends s to dst as Rust's Debug for str writes it, quotes
// included, so that a transcript reads like that of a client in Rust.
//
// The rule is that of impl Debug for str in Rust's core. Tab, newline, carriage return,
// NUL, the double quote and the backslash have short escapes; the single quote has none.
// Characters that Rust does not count as printable, and grapheme extenders, become \u{…}
// with lower-case hex digits and no padding. The output of a character does not depend on
// its neighbours.
//
// Bytes that are not UTF-8 count as U+FFFD, as in Rust's from_utf8_lossy and in
// encoding/json.
func Append(dst []byte, s string) []byte {
	dst = append(dst, '"')
	// s[start:i] needs no escapes and is not copied yet.
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
				i++
				continue
			}
			dst = append(dst, s[start:i]...)
			dst = appendASCIIEscape(dst, c)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, s[start:i]...)
			dst = utf8.AppendRune(dst, utf8.RuneError)
			start = i + size
		case rustEscapes(r):
			dst = append(dst, s[start:i]...)
			dst = appendUnicodeEscape(dst, r)
			start = i + size
		}
		i += size
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

// appendASCIIEscape appends the escape of an ASCII character that has one.
func appendASCIIEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case 0:
		return append(dst, `\0`...)
	case '\t':
		return append(dst, `\t`...)
	case '\n':
		return append(dst, `\n`...)
	case '\r':
		return append(dst, `\r`...)
	}
	return appendUnicodeEscape(dst, rune(c))
}

func appendUnicodeEscape(dst []byte, r rune) []byte {
	dst = append(dst, `\u{`...)
	dst = strconv.AppendUint(dst, uint64(r), 16)
	return append(dst, '}')
}

// rustEscapes reports whether Rust writes r, which is not ASCII, as \u{…}.
func rustEscapes(r rune) bool {
	// The answer changes at each bound, and is yes after the first one: so it is yes
	// if the number of bounds at or below r is odd.
	i, found := slices.BinarySearch(rustEscapeBounds[:], r)
	if found {
		i++
	}
	return i%2 == 1
}
