package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/request-migration/migrate/pkg/stream"
)

// object is a JSON object of which only some fields matter here: the others pass
// through byte for byte.
type object map[string]json.RawMessage

// readObject reads data as an object. It is not nil if there is no error.
func readObject(data []byte) (object, error) {
	var o object
	if err := json.Unmarshal(data, &o); err != nil {
		return nil, fmt.Errorf("reading an object: %w", err)
	}
	if o == nil {
		return nil, errors.New("reading an object: it is null")
	}
	return o, nil
}

// bytes returns the object as JSON, its fields sorted by name, without those that
// have no value.
// (encoding/json would write the fields' strings anew, with other escapes.)
func (o object) bytes() json.RawMessage {
	size := 2
	for name, value := range o {
		size += len(name) + len(value) + 4
	}
	dst := append(make([]byte, 0, size), '{')
	for _, name := range slices.Sorted(maps.Keys(o)) {
		if len(o[name]) == 0 {
			continue
		}
		if len(dst) > 1 {
			dst = append(dst, ',')
		}
		dst = append(append(dst, stream.String(name)...), ':')
		dst = append(dst, o[name]...)
	}
	return append(dst, '}')
}

// has reports whether the field is there and not null.
func (o object) has(name string) bool { return !isNull(o[name]) }

// str returns the string in the field, "" if it holds none.
func (o object) str(name string) string {
	s, _ := decodeString(o[name])
	return s
}

// yes reports whether the field is true.
func (o object) yes(name string) bool { return string(o[name]) == "true" }

// integer returns the whole number in the field, and whether there is one.
func (o object) integer(name string) (int, bool) {
	n, err := strconv.Atoi(string(o[name]))
	return n, err == nil
}

// sub returns the object in the field; nil if it holds none.
func (o object) sub(name string) object {
	if raw := o[name]; len(raw) == 0 || raw[0] != '{' {
		return nil
	}
	sub, err := readObject(o[name])
	if err != nil {
		return nil
	}
	return sub
}

// list returns the elements of the array in the field; nil if it holds none.
func (o object) list(name string) []json.RawMessage {
	if raw := o[name]; len(raw) == 0 || raw[0] != '[' {
		return nil
	}
	var l []json.RawMessage
	if json.Unmarshal(o[name], &l) != nil {
		return nil
	}
	return l
}

// joinList returns an array of the elements.
func joinList(elements []json.RawMessage) json.RawMessage {
	dst := []byte{'['}
	for i, e := range elements {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, e...)
	}
	return append(dst, ']')
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// isNothing reports whether a value says nothing: null, or empty.
func isNothing(raw json.RawMessage) bool {
	switch string(raw) {
	case "", "null", `""`, "[]", "{}":
		return true
	}
	return false
}

// isString reports whether raw, which is valid JSON, is a string.
func isString(raw json.RawMessage) bool { return len(raw) >= 2 && raw[0] == '"' }

// decodeString returns what a JSON string stands for, and whether raw is one.
func decodeString(raw json.RawMessage) (string, bool) {
	return stream.Annotated{Data: raw}.Text()
}

// number returns n as JSON.
func number(n int) json.RawMessage { return strconv.AppendInt(nil, int64(n), 10) }

// oneLine returns the value without the line breaks that JSON allows between its
// parts.
func oneLine(raw json.RawMessage) json.RawMessage {
	if bytes.IndexByte(raw, '\n') < 0 && bytes.IndexByte(raw, '\r') < 0 {
		return raw
	}
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return raw
	}
	return b.Bytes()
}

// divide cuts a JSON string into strings of at most maxText bytes, none in the
// middle of a character or an escape.
func divide(raw json.RawMessage) []json.RawMessage {
	if len(raw) <= maxText {
		return []json.RawMessage{raw}
	}
	var pieces []json.RawMessage
	for body := raw[1 : len(raw)-1]; len(body) > 0; {
		n := 0
		for n < len(body) {
			step := stepOf(body[n:])
			if n > 0 && n+step > maxText-2 {
				break
			}
			n += step
		}
		piece := append(append(append(make(json.RawMessage, 0, n+2), '"'), body[:n]...), '"')
		pieces, body = append(pieces, piece), body[n:]
	}
	return pieces
}

// longestStep is how many bytes a character takes at most in a JSON string: the
// escapes of a surrogate pair.
const longestStep = len(`\ud83d\ude00`)

// stepOf returns how many bytes of a string's inside belong to its first
// character.
func stepOf(body []byte) int {
	var n int
	switch {
	case body[0] != '\\':
		_, n = utf8.DecodeRune(body)
	case len(body) >= 2 && body[1] != 'u':
		n = 2
	case len(body) >= longestStep && isHighSurrogate(body) && body[6] == '\\' && body[7] == 'u':
		n = longestStep
	default:
		n = 6
	}
	return min(n, len(body))
}

// isHighSurrogate reports whether an escape is the first half of a pair.
func isHighSurrogate(escape []byte) bool {
	return len(escape) >= 6 && (escape[2] == 'd' || escape[2] == 'D') && strings.IndexByte("89abAB", escape[3]) >= 0
}

// endsInHalf reports whether a JSON string ends in the first half of a surrogate
// pair.
func endsInHalf(raw json.RawMessage) bool {
	n := len(raw) - 1 - 6
	if n < 1 || raw[n] != '\\' || raw[n+1] != 'u' || !isHighSurrogate(raw[n:]) {
		return false
	}
	slashes := 0
	for i := n - 1; i > 0 && raw[i] == '\\'; i-- {
		slashes++
	}
	return slashes%2 == 0 // else the backslash itself is escaped
}

// truth returns b as JSON.
func truth(b bool) json.RawMessage { return strconv.AppendBool(nil, b) }
