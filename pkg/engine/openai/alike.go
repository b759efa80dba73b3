package openai

import (
	"encoding/json"
	"strconv"
	"strings"
)

// alike knows what surrounds the text in a chunk that says nothing but text, and how many tokens
// there are so far. Most chunks of an answer differ from the one before in that alone, and need
// not be taken apart again: that is most of what a chunk costs. The zero value knows nothing.
type alike struct {
	front string   // up to the text
	back  []string // behind the text; between each two there is a number
	count int      // which of the numbers counts the tokens; -1 if none does
}

// learn takes the data of a chunk whose field holds the text, and which says nothing else.
func (l *alike) learn(data, field string, text rawMessage) {
	*l = alike{}
	key := `"` + field + `":`
	before, after, ok := strings.Cut(data, key)
	if !ok || strings.Contains(after, key) {
		return // which of them holds the text is not sure
	}
	gap := len(after) - len(strings.TrimLeft(after, " "))
	behind, ok := strings.CutPrefix(after[gap:], string(text))
	if !ok {
		return
	}
	if back, count, ok := numbers(behind); ok {
		*l = alike{before + key + after[:gap], back, count}
	}
}

// numbers divides what is behind the text at the numbers of the object in which the engine says
// how far it is. It reports false if it is not sure which of them counts the tokens.
func numbers(behind string) (fixed []string, count int, ok bool) {
	for object, field := range map[string]string{`"usage":`: `"completion_tokens":`, `"timings":`: `"predicted_n":`} {
		before, after, found := strings.Cut(behind, object)
		gap := len(after) - len(strings.TrimLeft(after, " "))
		if !found || !strings.HasPrefix(after[gap:], "{") {
			continue
		}
		if fixed != nil {
			return nil, 0, false // both
		}
		fixed, count = divideNumbers(before+object, after), -1
		for n, part := range fixed[:len(fixed)-1] {
			if !strings.HasSuffix(strings.TrimRight(part, " "), field) {
				continue
			}
			if count >= 0 {
				return nil, 0, false
			}
			count = n
		}
	}
	if fixed == nil {
		return []string{behind}, -1, true
	}
	return fixed, count, true
}

// divideNumbers divides before+object at the digits of the object that it begins with, but for
// those in strings.
func divideNumbers(before, object string) (fixed []string) {
	part := []byte(before)
	depth := 0
	for i := 0; i < len(object); {
		n := 1
		switch c := object[i]; {
		case c == '"':
			n = stringEnd(object[i:])
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth == 0 {
				return append(fixed, string(part)+object[i:])
			}
		case isDigit(c):
			fixed, part = append(fixed, string(part)), nil
			i += digits(object[i:])
			continue
		}
		part = append(part, object[i:i+n]...)
		i += n
	}
	return append(fixed, string(part)) // it has no end, which valid JSON has
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// digits returns how many digits s begins with.
func digits(s string) int {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return n
}

// stringEnd returns the length of the JSON string that s begins with; that of s if it has no end.
func stringEnd(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(s)
}

// text returns the text of a chunk that is otherwise as the one that was learnt, and how many
// tokens there are so far; -1 if it does not say.
func (l *alike) text(data string) (text rawMessage, tokens int, ok bool) {
	if l.front == "" {
		return nil, 0, false
	}
	rest, ok := strings.CutPrefix(data, l.front)
	if !ok || rest == "" || rest[0] != '"' {
		return nil, 0, false
	}
	end := stringEnd(rest)
	behind, tokens := rest[end:], -1
	for n, part := range l.back {
		if behind, ok = strings.CutPrefix(behind, part); !ok {
			return nil, 0, false
		}
		if n == len(l.back)-1 {
			break
		}
		long := digits(behind)
		if n == l.count {
			var err error
			if tokens, err = strconv.Atoi(behind[:long]); err != nil {
				return nil, 0, false
			}
		}
		if long == 0 {
			return nil, 0, false
		}
		behind = behind[long:]
	}
	if behind != "" || end <= len(`""`) {
		return nil, 0, false
	}
	text = []byte(rest[:end])
	return text, tokens, json.Valid(text)
}
