package gateway

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"slices"

	"github.com/request-migration/migrate/pkg/engine/openai"
	"github.com/request-migration/migrate/pkg/internal/rawjson"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
)

// collected is the answer of a client that wants it whole. It has got nothing until the end,
// so whatever breaks before may begin anew.
type collected struct {
	w        http.ResponseWriter
	q        *query
	a        *answer
	instance string
	choices  map[int]*choice
	rest     rawjson.Object // fields of chunks that are nothing else
	usage    rawjson.Object
}

// choice is one of an answer's choices.
type choice struct {
	fields map[string]*joined // of the delta, or "text"
	calls  map[int]*call
	finish json.RawMessage
	logs   map[string][]json.RawMessage // logprobs
	others rawjson.Object               // of the choice
}

// call is a tool call.
type call struct {
	fields    rawjson.Object
	name      joined
	arguments joined
}

// joined is a JSON string that came in pieces, or the last value that came.
type joined struct {
	text  []byte // the insides of strings
	value json.RawMessage
}

func (j *joined) add(raw json.RawMessage) {
	switch {
	case rawjson.IsString(raw):
		j.text = append(j.text, raw[1:len(raw)-1]...)
		j.value = nil
	case !rawjson.IsNull(raw):
		j.value = raw
	}
}

func (j *joined) json() json.RawMessage {
	if j.value != nil {
		return j.value
	}
	return append(append([]byte{'"'}, j.text...), '"')
}

func (c *collected) anew() {
	c.choices, c.rest, c.usage = nil, nil, nil
}

func (c *collected) choice(index int) *choice {
	if c.choices == nil {
		c.choices = make(map[int]*choice)
	}
	if c.choices[index] == nil {
		c.choices[index] = &choice{fields: map[string]*joined{}, calls: map[int]*call{}, logs: map[string][]json.RawMessage{}, others: rawjson.Object{}}
	}
	return c.choices[index]
}

func (h *choice) add(field string, raw json.RawMessage) {
	if h.fields[field] == nil {
		h.fields[field] = &joined{}
	}
	h.fields[field].add(raw)
}

func (c *collected) item(i router.Item, _ *Migration) (delivered bool, err error) {
	c.instance = i.Peer.Name
	switch i.Event {
	case openai.EventHead:
		c.a.head(i.Data)
	case "":
		field := "text"
		if c.a.chat {
			field = "content"
		}
		c.choice(0).add(field, c.a.text(i.Data))
	case openai.EventReasoning:
		text, field := c.a.thought(i.Data)
		c.choice(0).add(field, text)
	case openai.EventChunk:
		c.chunk(i.Data)
	}
	return false, nil
}

// chunk adds what any other chunk has.
func (c *collected) chunk(data json.RawMessage) {
	chunk, err := rawjson.Read(data)
	if err != nil {
		return
	}
	if usage := chunk.Sub("usage"); usage != nil {
		c.usage = c.a.counted(usage)
	}
	for _, raw := range chunk.List("choices") {
		part, err := rawjson.Read(raw)
		if err != nil {
			continue
		}
		index, _ := part.Int("index")
		c.choice(index).take(part)
	}
	if c.rest == nil {
		c.rest = rawjson.Object{}
	}
	for name, value := range chunk {
		if name != "usage" && name != "choices" && !rawjson.IsNull(value) {
			c.rest[name] = value
		}
	}
}

// take adds a part of a choice.
func (h *choice) take(part rawjson.Object) {
	for name, value := range part {
		switch name {
		case "index":
		case "finish_reason":
			if !rawjson.IsNull(value) {
				h.finish = value
			}
		case "logprobs":
			for kind := range part.Sub("logprobs") {
				h.logs[kind] = append(h.logs[kind], part.Sub("logprobs").List(kind)...)
			}
		case "text":
			h.add("text", value)
		case "delta":
			h.delta(part.Sub("delta"))
		default:
			h.others[name] = value
		}
	}
}

func (h *choice) delta(delta rawjson.Object) {
	for name, value := range delta {
		switch name {
		case "role":
		case "tool_calls":
			for _, raw := range delta.List("tool_calls") {
				h.call(raw)
			}
		default:
			h.add(name, value)
		}
	}
}

// call adds a part of a tool call.
func (h *choice) call(raw json.RawMessage) {
	part, err := rawjson.Read(raw)
	if err != nil {
		return
	}
	index, _ := part.Int("index")
	if h.calls[index] == nil {
		h.calls[index] = &call{fields: rawjson.Object{}}
	}
	called := h.calls[index]
	for name, value := range part {
		if name != "index" && name != "function" && !rawjson.IsNull(value) {
			called.fields[name] = value
		}
	}
	function := part.Sub("function")
	called.name.add(function["name"])
	called.arguments.add(function["arguments"])
}

// json returns the choice as it stands in an answer that is not streamed.
func (h *choice) json(index int, chat bool) json.RawMessage {
	o := h.others
	o["index"], o["finish_reason"] = rawjson.Number(index), h.finish
	if h.finish == nil {
		o["finish_reason"] = json.RawMessage("null")
	}
	o["logprobs"] = json.RawMessage("null")
	if len(h.logs) > 0 {
		logs := rawjson.Object{}
		for kind, entries := range h.logs {
			logs[kind] = rawjson.Join(entries)
		}
		o["logprobs"] = logs.Bytes()
	}
	if !chat {
		o["text"] = stream.String("")
		if text := h.fields["text"]; text != nil {
			o["text"] = text.json()
		}
		return o.Bytes()
	}
	message := rawjson.Object{"role": stream.String("assistant"), "content": json.RawMessage("null")}
	for name, value := range h.fields {
		message[name] = value.json()
	}
	if len(h.calls) > 0 {
		calls := make([]json.RawMessage, 0, len(h.calls))
		for _, n := range slices.Sorted(maps.Keys(h.calls)) {
			called := h.calls[n]
			called.fields["function"] = rawjson.Object{"name": called.name.json(), "arguments": called.arguments.json()}.Bytes()
			calls = append(calls, called.fields.Bytes())
		}
		message["tool_calls"] = rawjson.Join(calls)
	} else if _, ok := h.fields["content"]; !ok {
		message["content"] = stream.String("")
	}
	o["message"] = message.Bytes()
	return o.Bytes()
}

func (c *collected) end(failed *apiError) error {
	if failed != nil {
		failed.write(c.w)
		return nil
	}
	object := "text_completion"
	if c.a.chat {
		object = "chat.completion"
	}
	o := c.a.named(c.q.id, object)
	for name, value := range c.rest {
		if _, named := o[name]; !named {
			o[name] = value
		}
	}
	choices := make([]json.RawMessage, 0, len(c.choices))
	for _, n := range slices.Sorted(maps.Keys(c.choices)) {
		choices = append(choices, c.choices[n].json(n, c.a.chat))
	}
	o["choices"] = rawjson.Join(choices)
	if c.usage == nil {
		c.usage = c.a.missing()
	}
	if c.usage != nil {
		o["usage"] = c.usage.Bytes()
	}
	c.w.Header().Set("X-Migrate-Instance", c.instance)
	writeJSON(c.w, http.StatusOK, bytes.Clone(o.Bytes()))
	return nil
}
