package stream

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// unnumbered is the stream number of a line that has none.
const unnumbered = -1

// maxComment is how many bytes of an error's text are sent. The text is for
// people, and even cut it says enough.
const maxComment = 4096

// appendPrefix appends the beginning of every line of a stream: the brace, and
// the stream's number if it has one. At least one field follows.
func appendPrefix(dst []byte, stream int64) []byte {
	if stream == unnumbered {
		return append(dst, '{')
	}
	dst = append(dst, `{"stream":`...)
	dst = strconv.AppendInt(dst, stream, 10)
	return append(dst, ',')
}

// maxDepth is how deeply nested data may be for encoding/json to read it, on
// either side.
const maxDepth = 10_000

// tooDeep reports whether data, which is JSON, is nested too deeply to be read
// as part of a line, which puts an object around it.
func tooDeep(data json.RawMessage) bool {
	if bytes.Count(data, []byte{'['})+bytes.Count(data, []byte{'{'}) < maxDepth {
		return false
	}
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[', c == '{':
			if depth++; depth >= maxDepth {
				return true
			}
		case c == ']', c == '}':
			depth--
		}
	}
	return false
}

// onOneLine returns data in the form in which it can be part of a line: JSON in
// UTF-8 without newlines.
func onOneLine(data json.RawMessage) (json.RawMessage, error) {
	if isString(data) {
		return data, nil
	}
	if !utf8.Valid(data) {
		return nil, errors.New("data is not UTF-8")
	}
	var b bytes.Buffer
	if err := json.Compact(&b, data); err != nil {
		return nil, fmt.Errorf("data is not JSON: %w", err)
	}
	if tooDeep(b.Bytes()) {
		return nil, fmt.Errorf("data is nested %d deep or deeper, too deep to be read", maxDepth)
	}
	return b.Bytes(), nil
}

// appendItem appends an item's line. It begins with the stream's prefix, and
// onOneLine has checked its data. If the line is too long, dst is returned
// unchanged.
func appendItem(dst, prefix []byte, a *Annotated) ([]byte, error) {
	begin := len(dst)
	dst = append(dst, prefix...)
	dst = append(dst, `"data":`...)
	dst = append(dst, a.Data...)
	if a.ID != "" || a.Event != "" || len(a.Comment) > 0 {
		dst = appendRest(dst, a)
	}
	if n := len(dst) + 1 - begin; n > MaxLine {
		return dst[:begin], tooLong("an item", n)
	}
	return append(dst, "}\n"...), nil
}

// appendRest appends the fields that few items have. It is separate so that
// items without them need little stack: a handler's goroutine then keeps its
// initial stack.
func appendRest(dst []byte, a *Annotated) []byte {
	if a.ID != "" {
		dst = appendString(append(dst, `,"id":`...), a.ID)
	}
	if a.Event != "" {
		dst = appendString(append(dst, `,"event":`...), a.Event)
	}
	if len(a.Comment) > 0 {
		dst = appendComment(append(dst, ','), a.Comment)
	}
	return dst
}

// appendIndexEvent appends a line with an event and a number as its id: start,
// end or credit.
func appendIndexEvent(dst, prefix []byte, event string, index int) []byte {
	dst = append(dst, prefix...)
	dst = append(dst, `"event":"`...)
	dst = append(dst, event...)
	dst = append(dst, `","id":"`...)
	dst = strconv.AppendInt(dst, int64(index), 10)
	return append(dst, '"', '}', '\n')
}

// appendEvent appends a line with an event and, unless it is empty, a comment.
func appendEvent(dst, prefix []byte, event, comment string) []byte {
	if comment == "" {
		return appendControl(dst, prefix, event, nil)
	}
	return appendControl(dst, prefix, event, nil, comment)
}

// appendControl appends a line with an event, comments and data. Long comments
// are cut; data that is not JSON or does not fit is left out.
func appendControl(dst, prefix []byte, event string, data json.RawMessage, comments ...string) []byte {
	begin := len(dst)
	dst = append(dst, prefix...)
	dst = append(dst, `"event":"`...)
	dst = append(dst, event...)
	dst = append(dst, '"')
	if len(comments) > 0 {
		for i, c := range comments {
			if len(c) > maxComment {
				comments[i] = strings.ToValidUTF8(c[:maxComment], "")
			}
		}
		dst = appendComment(append(dst, ','), comments)
	}
	if len(data) > 0 {
		data, err := onOneLine(data)
		if n := len(dst) - begin + len(`,"data":}`) + len(data) + 1; err == nil && n <= MaxLine {
			dst = append(append(dst, `,"data":`...), data...)
		}
	}
	return append(dst, '}', '\n')
}

// appendPing appends the line with which a client asks whether the server lives
// and, unless to is empty, whether it is the intended one.
func appendPing(dst []byte, to string) []byte {
	dst = append(dst, `{"event":"ping"`...)
	if to != "" {
		dst = appendString(append(dst, `,"to":`...), to)
	}
	return append(dst, '}', '\n')
}

func appendComment(dst []byte, comment []string) []byte {
	dst = append(dst, `"comment":[`...)
	for i, c := range comment {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, c)
	}
	return append(dst, ']')
}

// appendRequest appends the line of a request from newOutgoing.
func appendRequest(dst []byte, stream int64, r Request) []byte {
	dst = appendPrefix(dst, stream)
	if r.ID != "" {
		dst = appendString(append(dst, `"id":`...), r.ID)
		dst = append(dst, ',')
	}
	if r.To != "" {
		dst = appendString(append(dst, `"to":`...), r.To)
		dst = append(dst, ',')
	}
	dst = append(dst, `"data":`...)
	dst = append(dst, r.Data...)
	if r.From > 0 {
		dst = strconv.AppendInt(append(dst, `,"from":`...), int64(r.From), 10)
	}
	if len(r.Prefix) > 0 {
		dst = appendItems(append(dst, `,"prefix":`...), r.Prefix)
	}
	if r.Attempt > 1 {
		dst = strconv.AppendInt(append(dst, `,"attempt":`...), int64(r.Attempt), 10)
	}
	if r.Timeout > 0 {
		// Rounded up, so that the client is the first to know that the time is
		// over.
		ms := (r.Timeout + time.Millisecond - 1).Milliseconds()
		dst = strconv.AppendInt(append(dst, `,"timeout_ms":`...), ms, 10)
	}
	if len(r.Headers) > 0 {
		dst = appendHeaders(append(dst, ','), r.Headers)
	}
	return append(dst, '}', '\n')
}

// appendItems appends items as a list. onOneLine has checked their data.
func appendItems(dst []byte, items []Annotated) []byte {
	sep := byte('[')
	for i := range items {
		dst = append(append(dst, sep), `{"data":`...)
		dst = append(dst, items[i].Data...)
		dst = append(appendRest(dst, &items[i]), '}')
		sep = ','
	}
	return append(dst, ']')
}

// appendHeaders appends the headers sorted by name, so that a request's line is
// the same over all attempts.
func appendHeaders(dst []byte, headers map[string]string) []byte {
	dst = append(dst, `"headers":`...)
	sep := byte('{')
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		dst = appendString(append(dst, sep), name)
		dst = appendString(append(dst, ':'), headers[name])
		sep = ','
	}
	return append(dst, '}')
}

func tooLong(what string, n int) error {
	return fmt.Errorf("sending %s: its line has %d bytes, more than %d", what, n, MaxLine)
}

// appendString appends s as a JSON string, escaping only what JSON requires.
// (encoding/json also escapes <, > and &, which are hard to read for a person
// with nc.)
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for _, r := range s {
		dst = appendRune(dst, r)
	}
	return append(dst, '"')
}

// appendRune appends r as part of a JSON string. An invalid character becomes
// U+FFFD.
func appendRune(dst []byte, r rune) []byte {
	switch {
	case r == '"', r == '\\':
		return append(dst, '\\', byte(r))
	case r == '\n':
		return append(dst, '\\', 'n')
	case r == '\r':
		return append(dst, '\\', 'r')
	case r == '\t':
		return append(dst, '\\', 't')
	case r < ' ':
		const hex = "0123456789abcdef"
		return append(dst, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
	}
	return utf8.AppendRune(dst, r)
}

// isPlainString reports whether data is a JSON string that stands for its own
// bytes: in quotes, UTF-8, with nothing escaped or in need of escaping.
func isPlainString(data []byte) bool {
	n := len(data)
	if n < 2 || data[0] != '"' || data[n-1] != '"' {
		return false
	}
	body := data[1 : n-1]
	var all uint64 // every bit that is set in any byte
	rest := body
	for ; len(rest) >= 8; rest = rest[8:] {
		word := binary.LittleEndian.Uint64(rest)
		if hasSpecial(word) {
			return false
		}
		all |= word
	}
	for _, c := range rest {
		if c < ' ' || c == '"' || c == '\\' {
			return false
		}
		all |= uint64(c)
	}
	return all&highBits == 0 || utf8.Valid(body)
}

// isString reports whether data is a JSON string in UTF-8. Those that are cheap to
// tell are all that there are but few: a line of text has one escape, its newline.
func isString(data []byte) bool {
	n := len(data)
	if n < 2 || data[0] != '"' || data[n-1] != '"' {
		return false
	}
	body := data[1 : n-1]
	var all uint64 // every bit that is set in any byte
	for i := 0; i < len(body); {
		if i+8 <= len(body) {
			if word := binary.LittleEndian.Uint64(body[i:]); !hasSpecial(word) {
				all |= word
				i += 8
				continue
			}
		}
		switch c := body[i]; {
		case c < ' ', c == '"':
			return false
		case c != '\\':
			all |= uint64(c)
			i++
		default:
			size := escape(body[i:])
			if size == 0 {
				return false
			}
			i += size
		}
	}
	return all&highBits == 0 || utf8.Valid(body)
}

// escape returns how many bytes the escape has with which s begins, or 0 if it is
// none.
func escape(s []byte) int {
	if len(s) < 2 {
		return 0
	}
	switch s[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(s) < 6 {
			return 0
		}
		for _, c := range s[2:6] {
			if hex := '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'; !hex {
				return 0
			}
		}
		return 6
	}
	return 0
}

// unescape returns the text that the body of a JSON string stands for, unless it
// has escapes by number.
func unescape(body []byte) (string, bool) {
	var b strings.Builder
	b.Grow(len(body))
	for {
		i := bytes.IndexByte(body, '\\')
		if i < 0 {
			b.Write(body)
			return b.String(), true
		}
		b.Write(body[:i])
		switch c := body[i+1]; c {
		case '"', '\\', '/':
			b.WriteByte(c)
		case 'b':
			b.WriteByte('\b')
		case 'f':
			b.WriteByte('\f')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		default:
			return "", false
		}
		body = body[i+2:]
	}
}

const (
	lowBits  = 0x0101010101010101
	highBits = 0x8080808080808080
)

// hasSpecial reports whether one of the eight bytes of w is a quote, a
// backslash or a control character. (The tests for a zero byte and for a byte
// below n are from Anderson's "Bit Twiddling Hacks".)
func hasSpecial(w uint64) bool {
	quote, slash := w^('"'*lowBits), w^('\\'*lowBits)
	below := (w - ' '*lowBits) &^ w
	quote = (quote - lowBits) &^ quote
	slash = (slash - lowBits) &^ slash
	return (below|quote|slash)&highBits != 0
}
