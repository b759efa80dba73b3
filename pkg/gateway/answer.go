package gateway

import (
	"encoding/json"
	"time"

	"github.com/request-migration/migrate/pkg/internal/rawjson"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
)

// An answer is what makes the pieces of several engines one answer: its id, and its usage.
type answer struct {
	chat        bool
	id          json.RawMessage // the first engine's
	created     json.RawMessage
	fingerprint json.RawMessage // system_fingerprint, of the engine that answers
	model       string          // that answers
	usage       rawjson.Object  // complete, as the client is told; nil if no engine has said it

	tokens    int // that came
	reasoning int // of them
	prompt    int // tokens of the question, as the first engine counted them; 0 if it did not

	// What the engine that answers now does not count: what others have written.
	before, reasoningBefore int
}

// attempt notes that an engine is asked. One that goes on behind what there is counts only what
// it writes itself; one that begins anew counts everything.
func (a *answer) attempt(way router.Way) {
	if way == router.WayPrefix {
		a.before, a.reasoningBefore = a.tokens, a.reasoning
		return
	}
	a.before, a.reasoningBefore = 0, 0
}

// anew forgets what has come.
func (a *answer) anew() { *a = answer{chat: a.chat, model: a.model} }

// head takes what an answer is called.
func (a *answer) head(data json.RawMessage) {
	head, err := rawjson.Read(data)
	if err != nil {
		return
	}
	if a.id == nil {
		a.id, a.created = head["id"], head["created"]
		a.prompt, _ = head.Int("prompt_tokens")
	}
	if fingerprint := head["system_fingerprint"]; fingerprint != nil {
		a.fingerprint = fingerprint
	}
}

// named returns the fields that every chunk and every answer has, with an id if no engine gave
// one.
func (a *answer) named(id, object string) rawjson.Object {
	if rawjson.IsNull(a.id) {
		a.id = stream.String(id)
	}
	if rawjson.IsNull(a.created) {
		a.created = rawjson.Number(int(time.Now().Unix()))
	}
	o := rawjson.Object{"id": a.id, "object": stream.String(object), "created": a.created, "model": stream.String(a.model)}
	if a.fingerprint != nil {
		o["system_fingerprint"] = a.fingerprint
	}
	return o
}

// text counts an item of content and returns its text as JSON.
func (a *answer) text(data json.RawMessage) json.RawMessage {
	if rawjson.IsString(data) {
		a.tokens++
		return data
	}
	o, err := rawjson.Read(data)
	if err != nil {
		return stream.String("")
	}
	a.tokens += tokensOf(o)
	return o["text"]
}

// thought counts an item of reasoning and returns its text, as JSON, and its field.
func (a *answer) thought(data json.RawMessage) (text json.RawMessage, field string) {
	o, err := rawjson.Read(data)
	if err != nil {
		return stream.String(""), "reasoning"
	}
	n := tokensOf(o)
	a.tokens += n
	a.reasoning += n
	return o["text"], o.Str("field")
}

// tokensOf returns how many tokens an item has: one where nothing better is known.
func tokensOf(o rawjson.Object) int {
	if n, ok := o.Int("tokens"); ok {
		return n
	}
	return 1
}

// counted takes an engine's usage, makes it that of the whole answer, and returns it.
func (a *answer) counted(usage rawjson.Object) rawjson.Object {
	completion, ok := usage.Int("completion_tokens")
	if !ok {
		return usage
	}
	completion += a.before
	prompt, _ := usage.Int("prompt_tokens")
	switch {
	case a.prompt > 0:
		prompt = a.prompt
	case a.before > 0:
		prompt = max(prompt-a.before, 0)
	}
	usage["prompt_tokens"], usage["completion_tokens"] = rawjson.Number(prompt), rawjson.Number(completion)
	usage["total_tokens"] = rawjson.Number(prompt + completion)
	if details := usage.Sub("completion_tokens_details"); details != nil && a.reasoningBefore > 0 {
		n, _ := details.Int("reasoning_tokens")
		details["reasoning_tokens"] = rawjson.Number(n + a.reasoningBefore)
		usage["completion_tokens_details"] = details.Bytes()
	}
	a.usage = usage
	return usage
}

// missing returns the usage that no engine has said, as the one that had finished the answer
// broke before it could: the tokens that came. It is nil if nobody has counted the question.
func (a *answer) missing() rawjson.Object {
	if a.usage != nil || a.prompt == 0 {
		return nil
	}
	a.usage = rawjson.Object{
		"prompt_tokens": rawjson.Number(a.prompt), "completion_tokens": rawjson.Number(a.tokens), "total_tokens": rawjson.Number(a.prompt + a.tokens),
	}
	return a.usage
}

// chunkUsage replaces the usage in a chunk by that of the whole answer, or takes it out. It
// reports whether the chunk then says anything.
func (a *answer) chunkUsage(chunk rawjson.Object, wanted bool) bool {
	usage := chunk.Sub("usage")
	if usage != nil {
		usage = a.counted(usage)
	}
	switch {
	case usage != nil && wanted:
		chunk["usage"] = usage.Bytes()
		return true
	case !wanted:
		delete(chunk, "usage")
	}
	return len(chunk.List("choices")) > 0 || len(chunk) > 1 || len(chunk) == 1 && chunk["choices"] == nil
}
