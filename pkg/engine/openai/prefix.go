package openai

import (
	"encoding/json"
	"strings"
	"unicode"

	"github.com/request-migration/migrate/pkg/internal/rawjson"
	"github.com/request-migration/migrate/pkg/stream"
)

// The events of items that are more than text.
const (
	// EventHead is what holds for all of an answer: id, created, model,
	// system_fingerprint, prompt_tokens. It comes once a stream, first.
	EventHead = "head"
	// EventReasoning is a piece of reasoning: text, tokens, and the field that it
	// came in.
	EventReasoning = "reasoning"
	// EventChunk is any other chunk, without its head.
	EventChunk = "chunk"
	// EventSSE is an event, and EventResponse an answer (status, headers, body),
	// for paths whose answers pass as they are.
	EventSSE      = "sse"
	EventResponse = "response"
)

// soFar is what the client has of an answer.
type soFar struct {
	text      string
	tokens    int // of text and reasoning, as the engine counted them
	reasoning string
	field     string // in which the reasoning came
	finished  int    // how many choices are
	began     bool   // more than a head and reasoning went out
	// blanks is the white space at the end of text. blankTokens of the tokens are
	// nothing but that; mixed says that another one has part of it.
	blanks      string
	blankTokens int
	mixed       bool
	reason      string // why it can't be continued, whoever is asked; "" if it can
}

// readPrefix reads the items so far.
func readPrefix(req *stream.Request) (soFar, error) {
	if req.From != len(req.Prefix) {
		return soFar{}, refuse(stream.ErrUnresumable, "cannot begin at item %d without the items before it", req.From)
	}
	var r prefixReader
	for i := range req.Prefix {
		r.item(&req.Prefix[i])
	}
	return r.result(), nil
}

// prefixReader puts the items so far together. Text is joined before it is
// decoded, as an engine may divide it inside a surrogate pair.
type prefixReader struct {
	so        soFar
	text      []byte // the inside of a JSON string
	parts     []textPart
	reasoning []byte
	anew      bool // the reasoning of a stream begins
}

// textPart is an item of text.
type textPart struct {
	size   int // of text, in bytes
	tokens int
}

func (r *prefixReader) item(a *stream.Annotated) {
	switch a.Event {
	case "":
		r.textItem(a.Data)
	case EventHead:
		if !r.so.began { // the original was asked again
			r.so.tokens, r.so.field, r.reasoning = 0, "", nil
			r.anew = true
		}
	case EventReasoning:
		r.reasoningItem(a.Data)
	case EventChunk:
		r.chunk(a.Data)
	default:
		r.refuse("an item of the event " + a.Event)
	}
}

func (r *prefixReader) refuse(what string) {
	r.so.began = true
	if r.so.reason == "" {
		r.so.reason = what + " was delivered"
	}
}

func (r *prefixReader) textItem(data json.RawMessage) {
	tokens := 1
	if !rawjson.IsString(data) {
		o, err := rawjson.Read(data)
		if err != nil || !rawjson.IsString(o["text"]) {
			r.refuse("an item that is no text")
			return
		}
		data, tokens = o["text"], tokensOf(o)
	}
	r.so.began = true
	r.so.tokens += tokens
	r.text = append(r.text, data[1:len(data)-1]...)
	r.parts = append(r.parts, textPart{len(data) - 2, tokens})
}

// tokensOf returns how many tokens an item says that it has; one if it does not
// say.
func tokensOf(o object) int {
	if n, ok := o.Int("tokens"); ok && n >= 0 {
		return n
	}
	return 1
}

func (r *prefixReader) reasoningItem(data json.RawMessage) {
	o, err := rawjson.Read(data)
	text := o["text"]
	if err != nil || !rawjson.IsString(text) {
		r.refuse("reasoning that is no text")
		return
	}
	n := tokensOf(o)
	if r.anew && n == 0 && string(text) == restartGap {
		return // this package's own
	}
	r.anew = false
	r.so.tokens += n
	r.so.field = o.Str("field")
	r.reasoning = append(r.reasoning, text[1:len(text)-1]...)
}

// chunk reads a chunk as package answer divided it: its text, if it has any, was
// not an item of its own.
func (r *prefixReader) chunk(data json.RawMessage) {
	o, err := rawjson.Read(data)
	if err != nil {
		r.refuse("an item that is no chunk")
		return
	}
	for _, raw := range o.List("choices") {
		choice, err := rawjson.Read(raw)
		if err != nil {
			r.refuse("an item that is no chunk")
			return
		}
		index, _ := choice.Int("index")
		delta := choice.Sub("delta")
		switch {
		case index > 0:
			r.refuse("one of several answers")
		case choice.Has("logprobs"):
			r.refuse("text with logprobs")
		case !rawjson.IsNothing(delta["tool_calls"]), !rawjson.IsNothing(delta["function_call"]):
			r.refuse("part of a tool call")
		case saysMore(delta):
			r.refuse("a part of the answer that is no text")
		}
		if choice.Has("finish_reason") {
			r.so.finished++
		}
	}
}

// saysMore reports whether a delta has something that belongs to the answer
// itself.
func saysMore(delta object) bool {
	for name, value := range delta {
		switch name {
		case "role":
		case "refusal", "audio", "content", "annotations":
			if !rawjson.IsNothing(value) {
				return true
			}
		}
	}
	return false
}

// result returns what was read.
func (r *prefixReader) result() soFar {
	so := r.so
	so.text, so.reasoning = decodeInside(r.text), decodeInside(r.reasoning)
	if endsInHalf(quoted(r.text)) && so.reason == "" {
		so.reason = "half a character was delivered"
	}
	so.blanks = so.text[len(strings.TrimRightFunc(so.text, unicode.IsSpace)):]
	rest := r.text
	for i := len(r.parts) - 1; i >= 0 && so.blanks != ""; i-- {
		p := r.parts[i]
		text := decodeInside(rest[len(rest)-p.size:])
		rest = rest[:len(rest)-p.size]
		if strings.TrimSpace(text) == "" {
			so.blankTokens += p.tokens
			continue
		}
		so.mixed = strings.TrimRightFunc(text, unicode.IsSpace) != text
		break
	}
	return so
}

func quoted(inside []byte) json.RawMessage {
	return append(append(append(make([]byte, 0, len(inside)+2), '"'), inside...), '"')
}

// decodeInside returns what the inside of a JSON string stands for.
func decodeInside(inside []byte) string {
	s, _ := rawjson.Decode(quoted(inside))
	return s
}
