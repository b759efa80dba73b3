package openai

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/request-migration/migrate/pkg/internal/rawjson"
)

type object = rawjson.Object

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
