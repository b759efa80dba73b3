package openai

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	. "github.com/request-migration/migrate/pkg/engine/openai/openaitest" //nolint:revive // a language of steps
	"github.com/request-migration/migrate/pkg/internal/rawjson"
	"github.com/request-migration/migrate/pkg/stream"
)

// parts is a tool call as engines stream it.
func parts() []string {
	return []string{
		`{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"weather","arguments":""}}]}`,
		`{"tool_calls":[{"index":0,"function":{"arguments":"{\"city\":"}}]}`,
		`{"tool_calls":[{"index":0,"function":{"arguments":"\"Ulm\"}"}}]}`,
	}
}

// callOf returns the arguments of the call that the client sees.
func callOf(r asked) string {
	var b strings.Builder
	for _, a := range r.items {
		if a.Event != EventChunk {
			continue
		}
		chunk, _ := rawjson.Read(a.Data)
		for _, raw := range chunk.List("choices") {
			choice, _ := rawjson.Read(raw)
			for _, raw := range choice.Sub("delta").List("tool_calls") {
				call, _ := rawjson.Read(raw)
				b.WriteString(call.Sub("function").Str("arguments"))
			}
		}
	}
	return b.String()
}

// A call that breaks in the middle loses nothing: none of it was delivered, and
// the next engine gives the whole.
func TestHeldCallBreaks(t *testing.T) {
	text := []string{"I", " will", " look", "."}
	for cut := range parts() {
		broken := &Provider{OwnedBy: "vllm", Tokens: text, Misbehave: misbehave(4, Events(chunks(parts()[:cut+1])...), Cut())}
		first := ask(t, newEngine(t, broken, Config{}), chat(`,"tools":[]`))
		first.check(t, "failed", "broke")
		if callOf(first) != "" || strings.Contains(first.String(), "tool_calls") {
			t.Errorf("part of the call was delivered:\n%s", first)
		}
		rest := onBehind(t, &Provider{OwnedBy: "vllm", Tokens: text, Calls: parts()}, Config{}, chat(`,"tools":[]`), first.items)
		rest.check(t, "end", "")
		joined := asked{items: append(slices.Clip(first.items), rest.items...)}
		if s, _ := joined.text(); s != "I will look." || callOf(joined) != `{"city":"Ulm"}` || joined.finish() != "tool_calls" {
			t.Errorf("text %q, call %q, finish %q", s, callOf(joined), joined.finish())
		}
	}
}

func chunks(deltas []string) []string {
	out := make([]string, 0, len(deltas))
	for _, d := range deltas {
		out = append(out, Chunk(d, "null"))
	}
	return out
}

// Held parts go out as they came, in order, and text behind a call stays there.
func TestHeldCallAsItCame(t *testing.T) {
	for _, how := range []ToolCalls{ToolCallsHold, ToolCallsStream} {
		p := &Provider{OwnedBy: "somebody", Misbehave: misbehave(0, Content("a"), Events(chunks(parts())...), Content("b"), Finish("tool_calls"))}
		got := ask(t, newEngine(t, p, Config{ToolCalls: how}), chat(""))
		got.check(t, "end", "")
		kinds := make([]string, 0, len(got.items))
		for _, a := range got.items {
			kinds = append(kinds, a.Event)
		}
		if s := strings.Join(kinds, ","); s != "head,,chunk,chunk,chunk,,chunk" || callOf(got) != `{"city":"Ulm"}` {
			t.Errorf("%s: %s; items:\n%s", how, s, got)
		}
		// Once it was delivered the answer can't be carried on.
		onBehind(t, &Provider{OwnedBy: "vllm"}, Config{}, chat(""), got.items[:3]).check(t, "unresumable", "part of a tool call")
	}
}

// A call that is streamed goes out before the engine has finished it.
func TestStreamedCall(t *testing.T) {
	p := &Provider{OwnedBy: "vllm", Misbehave: misbehave(0, Events(chunks(parts()[:2])...), Cut())}
	got := ask(t, newEngine(t, p, Config{ToolCalls: ToolCallsStream}), chat(""))
	got.check(t, "failed", "broke")
	if callOf(got) != `{"city":` {
		t.Errorf("call %q", callOf(got))
	}
}

// No more than 4 MiB are held: more goes out as it comes. What is too long for a
// line is divided.
func TestLongCall(t *testing.T) {
	long := strings.Repeat(`\\\"é`, 1<<17) // 768 KiB as JSON
	steps := []Step{Events(chunks(parts()[:1])...)}
	for range 8 {
		steps = append(steps, Events(Chunk(fmt.Sprintf(`{"tool_calls":[{"index":0,"function":{"arguments":"%s"}}]}`, long), "null")))
	}
	p := &Provider{OwnedBy: "vllm", Misbehave: misbehave(0, append(steps, Cut())...)}
	got := ask(t, newEngine(t, p, Config{}), chat(""))
	got.check(t, "failed", "broke")
	if want := strings.Repeat(`\"é`, 8<<17); callOf(got) != want {
		t.Errorf("the call has %d bytes, want %d", len(callOf(got)), len(want))
	}
	for _, a := range got.items {
		if len(a.Data) > stream.MaxLine/2 {
			t.Errorf("an item has %d bytes", len(a.Data))
		}
	}

	p = &Provider{OwnedBy: "vllm", Misbehave: misbehave(0, append(steps[:5:5], Cut())...)} // 3 MiB
	if got := ask(t, newEngine(t, p, Config{}), chat("")); len(got.items) != 0 {
		t.Errorf("%d items of a held call were delivered", len(got.items))
	}
}
