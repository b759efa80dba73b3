package openai

import (
	"encoding/json"
	"strings"
)

// alike knows what surrounds the text in a chunk that says nothing but text. Most chunks of an
// answer differ from the one before in their text alone, and need not be taken apart again: that
// is most of what a chunk costs. The zero value knows nothing.
type alike struct{ front, back string }

// learn takes the data of a chunk whose field holds the text, and which says nothing else.
func (l *alike) learn(data, field string, text rawMessage) {
	*l = alike{}
	key := `"` + field + `":`
	before, after, ok := strings.Cut(data, key)
	if !ok || strings.Contains(after, key) {
		return // which of them holds the text is not sure
	}
	gap := len(after) - len(strings.TrimLeft(after, " "))
	back, ok := strings.CutPrefix(after[gap:], string(text))
	if !ok {
		return
	}
	*l = alike{front: before + key + after[:gap], back: back}
}

// text returns the text of a chunk that is otherwise as the one that was learnt.
func (l *alike) text(data string) (rawMessage, bool) {
	if l.front == "" || len(data) < len(l.front)+len(l.back) {
		return nil, false
	}
	rest, ok := strings.CutPrefix(data, l.front)
	if !ok {
		return nil, false
	}
	text, ok := strings.CutSuffix(rest, l.back)
	if !ok || len(text) <= len(`""`) || text[0] != '"' {
		return nil, false
	}
	raw := []byte(text)
	return raw, json.Valid(raw)
}
