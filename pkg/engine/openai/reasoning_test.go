package openai

import (
	"strings"
	"testing"

	. "github.com/request-migration/migrate/pkg/engine/openai/openaitest" //nolint:revive // a language of steps
	"github.com/request-migration/migrate/pkg/internal/rawjson"
	"github.com/request-migration/migrate/pkg/stream"
)

func thoughts() []string { return []string{"Let", " me", " think", "."} }

// reasoningOf returns the reasoning that the client sees.
func reasoningOf(r asked) string {
	var b strings.Builder
	for _, a := range r.items {
		if a.Event == EventReasoning {
			o, _ := rawjson.Read(a.Data)
			b.WriteString(o.Str("text"))
		}
	}
	return b.String()
}

// Reasoning comes in the field that the engine has for it.
func TestReasoningField(t *testing.T) {
	for owner, want := range map[string]string{
		"vllm":     `reasoning {"field":"reasoning","text":"Let","tokens":1}`,
		"sglang":   `reasoning {"field":"reasoning_content","text":"Let","tokens":1}`,
		"llamacpp": `reasoning {"field":"reasoning_content","text":"Let","tokens":1}`,
		"library":  `reasoning {"field":"reasoning","text":"Let"}`,
	} {
		got := ask(t, newEngine(t, &Provider{OwnedBy: owner, Reasoning: thoughts()}, Config{}), chat(""))
		got.check(t, "end", "")
		if second := strings.Split(got.String(), "\n")[1]; second != want {
			t.Errorf("%s: %s, want %s", owner, second, want)
		}
	}
}

// While only reasoning went out, the original is asked again, anybody, and its
// reasoning follows behind a blank line. The limit of tokens is the original's.
func TestReasoningRestarts(t *testing.T) {
	for _, owner := range []string{"vllm", "library"} {
		t.Run(owner, func(t *testing.T) {
			req := chat(`,"max_tokens":40`)
			first := ask(t, newEngine(t, &Provider{OwnedBy: owner, Reasoning: thoughts()}, Config{}), req)
			have := first.items[:3] // the head and two thoughts
			p := &Provider{OwnedBy: owner, Reasoning: thoughts()}
			rest := onBehind(t, p, Config{}, req, have)
			rest.check(t, "end", "")
			joined := asked{items: append(have[:3:3], rest.items...)}
			if got, want := reasoningOf(joined), "Let me\n\nLet me think."; got != want {
				t.Errorf("reasoning %q, want %q", got, want)
			}
			if s, _ := joined.text(); s != strings.Join(story(), "") {
				t.Errorf("text %q", s)
			}
			r := p.Requests()[0]
			if role, _ := r.LastMessage(); role != "user" || r.Field("max_tokens") != "40" {
				t.Errorf("the engine was asked behind the %s's message with max_tokens %s", role, r.Field("max_tokens"))
			}
			if owner != "vllm" {
				return
			}

			// It breaks again, behind content: what counts is the second run.
			for cut := 4; cut < len(joined.items); cut++ {
				p := &Provider{OwnedBy: owner, Reasoning: thoughts()}
				last := onBehind(t, p, Config{}, req, joined.items[:cut])
				last.check(t, "end", "")
				all := asked{items: append(joined.items[:cut:cut], last.items...)}
				wantTokens := len(story()) + len(thoughts())
				if s, n := all.text(); s != strings.Join(story(), "") || n != wantTokens {
					t.Errorf("cut behind %d items: %d tokens, want %d; text %q", cut, n, wantTokens, s)
				}
			}
		})
	}
}

func TestReasoningFails(t *testing.T) {
	have := []stream.Annotated{{Event: EventReasoning, Data: rawMessage(`{"text":"Hm","field":"reasoning"}`)}}
	p := &Provider{OwnedBy: "vllm"}
	onBehind(t, p, Config{Reasoning: ReasoningFail}, chat(""), have).check(t, "unresumable", "only reasoning")
	if n := len(p.Requests()); n != 0 {
		t.Errorf("the engine got %d requests", n)
	}
}

// Once content went out, the engine gets the reasoning so far in its field.
func TestReasoningGoesAlong(t *testing.T) {
	for owner, field := range map[string]string{"vllm": "reasoning", "llamacpp": "reasoning_content"} {
		answer := ask(t, newEngine(t, &Provider{OwnedBy: owner, Reasoning: thoughts()}, Config{}), chat(`,"max_tokens":40`))
		p := &Provider{OwnedBy: owner, Reasoning: thoughts()}
		rest := onBehind(t, p, Config{}, chat(`,"max_tokens":40`), answer.items[:7])
		rest.check(t, "end", "")
		if s, _ := rest.text(); s != strings.Join(story()[2:], "") || reasoningOf(rest) != "" {
			t.Errorf("%s: text %q, reasoning %q", owner, s, reasoningOf(rest))
		}
		r := p.Requests()[0]
		if want := `{"content":"Once upon","` + field + `":"Let me think.","role":"assistant"}]`; !strings.HasSuffix(r.Field("messages"), want) {
			t.Errorf("%s: messages %s, want %s at the end", owner, r.Field("messages"), want)
		}
		if got := r.Field("max_tokens"); got != "34" {
			t.Errorf("%s: max_tokens %s, want 34: reasoning counts", owner, got)
		}
	}
}

// If the reasoning is refused, the engine is asked without it and told not to
// think.
func TestReasoningRefused(t *testing.T) {
	answer := ask(t, newEngine(t, &Provider{OwnedBy: "vllm", Reasoning: thoughts()}, Config{}), chat(""))
	p := &Provider{OwnedBy: "vllm", Reasoning: thoughts(), Misbehave: func(r Request) (int, []Step) {
		if strings.Contains(r.Field("messages"), `"reasoning"`) {
			return 0, []Step{Status(400, "unknown field reasoning")}
		}
		return 0, nil
	}}
	rest := onBehind(t, p, Config{}, chat(`,"chat_template_kwargs":{"a":1}`), answer.items[:7])
	rest.check(t, "end", "")
	if s, _ := rest.text(); s != strings.Join(story()[2:], "") {
		t.Errorf("the rest is %q", s)
	}
	if got, want := p.Requests()[1].Field("chat_template_kwargs"), `{"a":1,"enable_thinking":false}`; len(p.Requests()) != 2 || got != want {
		t.Errorf("%d requests, chat_template_kwargs %s; want 2, %s", len(p.Requests()), got, want)
	}
}

// An engine that thinks again behind content has begun anew.
func TestReasoningBehindContent(t *testing.T) {
	have := []stream.Annotated{{Data: stream.String("Once")}}
	p := &Provider{OwnedBy: "vllm", Misbehave: misbehave(0, Events(Chunk(`{"reasoning":"Hm"}`, "null")), Content("Once"), Finish("stop"))}
	rest := onBehind(t, p, Config{}, chat(""), have)
	rest.check(t, "unresumable", "reasons again")
	if len(rest.items) != 0 {
		t.Errorf("items:\n%s", rest)
	}
}

// Some servers send reasoning under both names.
func TestReasoningTwice(t *testing.T) {
	p := &Provider{OwnedBy: "somebody", Misbehave: misbehave(0, Events(Chunk(`{"content":"","reasoning":"Hm","reasoning_content":"Hm"}`, "null")), Content("Hi"), Finish("stop"))}
	got := ask(t, newEngine(t, p, Config{}), chat(""))
	got.check(t, "end", "")
	if s := reasoningOf(got); s != "Hm" || len(got.items) != 4 {
		t.Errorf("reasoning %q; items:\n%s", s, got)
	}
}
