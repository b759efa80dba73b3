package openai

import (
	"github.com/request-migration/migrate/pkg/internal/rawjson"
	"github.com/request-migration/migrate/pkg/stream"
)

// maxHeld is how many bytes of tool calls are held back. More goes out as it
// comes, and can then not be carried on.
const maxHeld = 4 << 20

// holding holds the parts of tool calls back until all are there: a break inside
// a call then loses nothing, and nothing of it has to be continued. What comes
// behind a part is held too, so that the order stays.
type holding struct {
	on     bool // tool calls are to be held
	active bool
	items  []stream.Annotated
	size   int // of items, in bytes
}

// begin begins to hold, if that is wanted.
func (h *holding) begin() { h.active = h.on }

// add holds an item. It reports false if that would be too much.
func (h *holding) add(item stream.Annotated) bool {
	if h.size += len(item.Data); h.size > maxHeld {
		h.on = false
		return false
	}
	h.items = append(h.items, item)
	return true
}

// end ends the holding and returns what was held.
func (h *holding) end() []stream.Annotated {
	items := h.items
	h.items, h.size, h.active = nil, 0, false
	return items
}

// divideCall divides a chunk that is too long for a line where the arguments of
// its only tool call allow it. Clients join the parts as they join those of an
// engine.
func divideCall(chunk object) []object {
	if len(chunk["choices"]) <= maxText {
		return []object{chunk}
	}
	choices := chunk.List("choices")
	if len(choices) != 1 {
		return []object{chunk}
	}
	choice, err := rawjson.Read(choices[0])
	if err != nil {
		return []object{chunk}
	}
	delta := choice.Sub("delta")
	var parts []object
	add := func(c object, delta object, call object) {
		delta["tool_calls"] = rawjson.Join([]rawMessage{call.Bytes()})
		c["delta"] = delta.Bytes()
		parts = append(parts, object{"choices": rawjson.Join([]rawMessage{c.Bytes()})})
	}
	for _, raw := range delta.List("tool_calls") {
		call, err := rawjson.Read(raw)
		if err != nil {
			return []object{chunk}
		}
		function := call.Sub("function")
		if !rawjson.IsString(function["arguments"]) {
			return []object{chunk}
		}
		for i, piece := range divide(function["arguments"]) {
			function["arguments"] = piece
			call["function"] = function.Bytes()
			first := object{}
			if len(parts) == 0 && delta["role"] != nil {
				first["role"] = delta["role"]
			}
			add(object{"index": choice["index"]}, first, call)
			if i == 0 { // who is called was said
				call = object{"index": call["index"]}
				function = object{}
			}
		}
	}
	if len(parts) == 0 {
		return []object{chunk}
	}
	// What else the chunk says goes with the last part.
	rest := object{}
	for name, raw := range choice {
		if name != "delta" {
			rest[name] = raw
		}
	}
	if rest.Has("finish_reason") {
		rest["delta"] = rawMessage("{}")
		parts = append(parts, object{"choices": rawjson.Join([]rawMessage{rest.Bytes()})})
	}
	for name, raw := range chunk {
		if name != "choices" {
			parts[len(parts)-1][name] = raw
		}
	}
	return parts
}
