package openai

import (
	"fmt"
	"strings"
	"testing"

	. "github.com/request-migration/migrate/pkg/engine/openai/openaitest" //nolint:revive // a language of steps
	"github.com/request-migration/migrate/pkg/stream"
)

// onBehind asks for the rest of an answer of which the client has items, at an
// engine of its own.
func onBehind(t *testing.T, p *Provider, cfg Config, req stream.Request, items []stream.Annotated) asked {
	t.Helper()
	req.Prefix = items
	return ask(t, newEngine(t, p, cfg), req)
}

// whole returns the answer to a request that nothing disturbs.
func whole(t *testing.T, owner string, req stream.Request) asked {
	t.Helper()
	got := ask(t, newEngine(t, &Provider{OwnedBy: owner}, Config{}), req)
	got.check(t, "end", "")
	return got
}

// An answer is cut behind each of its items, and continued at another engine:
// text, finish and tokens are as without the cut.
func TestContinueBehindEachItem(t *testing.T) {
	for _, owner := range []string{"vllm", "sglang", "llamacpp"} {
		for name, req := range map[string]stream.Request{
			"chat":        chat(""),
			"completions": body(completionsPath, `"prompt":"Say|"`),
		} {
			t.Run(owner+" "+name, func(t *testing.T) {
				answer := whole(t, owner, req)
				wantText, wantTokens := answer.text()
				p := &Provider{OwnedBy: owner}
				e := newEngine(t, p, Config{})
				for cut := range len(answer.items) + 1 {
					req.Prefix = answer.items[:cut]
					rest := ask(t, e, req)
					rest.check(t, "end", "")
					joined := asked{items: append(answer.items[:cut:cut], rest.items...)}
					s, n := joined.text()
					if s != wantText || n != wantTokens || joined.finish() != "stop" {
						t.Errorf("cut behind %d items: %d tokens, finish %q, text %q; want %d, stop, %q",
							cut, n, joined.finish(), s, wantTokens, wantText)
					}
				}
			})
		}
	}
}

// max_tokens shrinks by what the engine counted, however the text was divided,
// so that the answer has as many tokens as without a cut. Sixteen cuts, in
// multi-byte text with white space.
func TestMaxTokensShrinks(t *testing.T) {
	for _, name := range []string{"max_tokens", "max_completion_tokens"} {
		req := chat(fmt.Sprintf(`,%q:17`, name))
		answer := whole(t, "llamacpp", req)
		wantText, _ := answer.text()
		if answer.finish() != "length" {
			t.Fatalf("finish %q, want length", answer.finish())
		}
		p := &Provider{OwnedBy: "llamacpp"}
		e := newEngine(t, p, Config{})
		for cut := range 16 {
			req.Prefix = answer.items[:cut]
			rest := ask(t, e, req)
			rest.check(t, "end", "")
			joined := asked{items: append(answer.items[:cut:cut], rest.items...)}
			if s, n := joined.text(); s != wantText || n != 17 || joined.finish() != "length" {
				t.Errorf("%s, cut behind %d items: %d tokens, finish %q, text %q; want 17, length, %q",
					name, cut, n, joined.finish(), s, wantText)
			}
		}
	}
}

// With nothing left the answer ends without a question to the engine.
func TestNothingLeft(t *testing.T) {
	answer := whole(t, "vllm", chat(`,"max_tokens":4`))
	for name, test := range map[string]struct {
		items []stream.Annotated
		want  string
	}{
		"the finish was lost": {answer.items[:5], `chunk {"choices":[{"delta":{},"finish_reason":"length","index":0}]}` + "\n"},
		"only the end was":    {answer.items, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := &Provider{OwnedBy: "vllm"}
			rest := onBehind(t, p, Config{}, chat(`,"max_tokens":4`), test.items)
			rest.check(t, "end", "")
			if rest.String() != test.want || len(p.Requests()) != 0 {
				t.Errorf("%d requests, items:\n%swant none, and\n%s", len(p.Requests()), rest, test.want)
			}
		})
	}
}

func TestMinTokensShrinks(t *testing.T) {
	items := whole(t, "vllm", chat("")).items[:4] // three tokens
	for given, want := range map[int]string{10: "7", 2: "0"} {
		p := &Provider{OwnedBy: "vllm"}
		onBehind(t, p, Config{}, chat(fmt.Sprintf(`,"min_tokens":%d`, given)), items).check(t, "end", "")
		if got := p.Requests()[0].Field("min_tokens"); got != want {
			t.Errorf("min_tokens %d became %s, want %s", given, got, want)
		}
	}
}

// White space at the end of what was delivered: nine places, each exact.
func TestTrailingBlanks(t *testing.T) {
	tokens := []string{"One", " ", " two", "\n", "\n", "three", "\n\n", "-", " four", ".\n", " ", "five", " \t", "\u00a0", "six", "\r\n", "seven"}
	for name, req := range map[string]stream.Request{"chat": chat(`,"max_tokens":16`), "completions": body(completionsPath, `"prompt":"Say|","max_tokens":16`)} {
		answer := ask(t, newEngine(t, &Provider{OwnedBy: "vllm", Tokens: tokens}, Config{}), req)
		wantText, wantTokens := answer.text()
		p := &Provider{OwnedBy: "vllm", Tokens: tokens}
		e := newEngine(t, p, Config{})
		places := 0
		for cut := range len(answer.items) {
			have, _ := (asked{items: answer.items[:cut]}).text()
			if strings.TrimSpace(have) == have {
				continue
			}
			places++
			req.Prefix = answer.items[:cut]
			rest := ask(t, e, req)
			rest.check(t, "end", "")
			joined := asked{items: append(answer.items[:cut:cut], rest.items...)}
			if s, n := joined.text(); s != wantText || n != wantTokens || joined.finish() != answer.finish() {
				t.Errorf("%s, cut behind %q: %d tokens, finish %q, text %q; want %d, %q", name, have, n, joined.finish(), s, wantTokens, wantText)
			}
			sent := p.Requests()
			if _, content := sent[len(sent)-1].LastMessage(); strings.TrimSpace(content) != content {
				t.Errorf("%s: the engine got the white space of %q", name, content)
			}
		}
		if places < 9 {
			t.Errorf("%s: %d places, want 9", name, places)
		}
	}
}

// Only white space was delivered: an empty beginning is not sent to an engine,
// which would answer it with garbage.
func TestOnlyBlanksDelivered(t *testing.T) {
	tokens := []string{"\n", " ", "Hi"}
	answer := ask(t, newEngine(t, &Provider{OwnedBy: "llamacpp", Tokens: tokens}, Config{}), chat(""))
	p := &Provider{OwnedBy: "llamacpp", Tokens: tokens}
	rest := onBehind(t, p, Config{}, chat(""), answer.items[:3])
	rest.check(t, "end", "")
	if s, _ := rest.text(); s != "Hi" {
		t.Errorf("the rest is %q, want %q", s, "Hi")
	}
	if role, content := p.Requests()[0].LastMessage(); role != "user" {
		t.Errorf("the engine was asked behind %q of the %s", content, role)
	}
}

// The client's own beginning of the answer is the assistant's last message
// already: it is extended.
func TestClientsOwnBeginning(t *testing.T) {
	own := func(content string) stream.Request {
		return body(chatPath, `"messages":[{"role":"user","content":"Go on"},{"role":"assistant","content":`+content+`}],"continue_final_message":true,"add_generation_prompt":false`)
	}
	req := own(`"Once upon"`)
	answer := whole(t, "vllm", req)
	if s, _ := answer.text(); !strings.HasPrefix(s, " a time") {
		t.Fatalf("the answer is %q", s)
	}
	p := &Provider{OwnedBy: "vllm"}
	rest := onBehind(t, p, Config{}, req, answer.items[:3])
	rest.check(t, "end", "")
	if s, _ := rest.text(); !strings.HasPrefix(s, ", é lived") {
		t.Errorf("the rest is %q", s)
	}
	if got, want := p.Requests()[0].Field("messages"), `[{"role":"user","content":"Go on"},{"content":"Once upon a time","role":"assistant"}]`; got != want {
		t.Errorf("the engine got\n%s, want\n%s", got, want)
	}

	for _, content := range []string{`[{"type":"text","text":"Once"}]`, `"","tool_calls":[{"id":"c1"}]`, `null`} {
		onBehind(t, &Provider{OwnedBy: "vllm"}, Config{}, own(content), answer.items[:3]).check(t, "unresumable", "not plain text")
	}
}

// What each kind is sent to continue, and whether it can.
func TestContinuingByKind(t *testing.T) {
	items := whole(t, "vllm", chat("")).items[:3]
	for _, test := range []struct {
		owner  string
		vouch  bool
		kind   Kind // that overrules owner
		fields string
	}{
		{"vllm", false, "", "true false"},
		{"llamacpp", false, "", "true false"},
		{"sglang", false, "", "true "},
		{"library", false, "", ""},
		{"somebody", false, "", ""},
		{"somebody", true, "", "true false"},
		{"somebody", false, SGLang, "true "},
		{"vllm", false, Other, ""},
	} {
		t.Run(fmt.Sprintf("%s %t %s", test.owner, test.vouch, test.kind), func(t *testing.T) {
			p := &Provider{OwnedBy: test.owner}
			got := onBehind(t, p, Config{ResumeByPrefix: test.vouch, Kind: test.kind}, chat(""), items)
			if test.fields == "" {
				got.check(t, "unresumable", "not known to continue")
				if n := len(p.Requests()); n != 0 {
					t.Errorf("the engine got %d requests", n)
				}
				return
			}
			r := p.Requests()[0]
			if fields := r.Field("continue_final_message") + " " + r.Field("add_generation_prompt"); fields != test.fields {
				t.Errorf("continue_final_message and add_generation_prompt are %q, want %q", fields, test.fields)
			}
		})
	}
}

// An engine that gives a second whole answer in place of a continuation.
func TestEngineBeginsAnew(t *testing.T) {
	answer := whole(t, "vllm", chat(""))
	anew := misbehave(0, Content(story()...), Finish("stop"))
	long := answer.upTo(30)
	onBehind(t, &Provider{OwnedBy: "vllm", Misbehave: anew}, Config{}, chat(""), long).check(t, "unresumable", "began the answer anew")

	// Nothing is delivered of it, and nothing is held back longer than it is like
	// the beginning.
	near := misbehave(0, Content("Once upon", " a time, é", " drank"), Finish("stop"))
	rest := onBehind(t, &Provider{OwnedBy: "vllm", Misbehave: near}, Config{}, chat(""), long)
	rest.check(t, "end", "")
	if s, _ := rest.text(); s != "Once upon a time, é drank" {
		t.Errorf("the rest is %q", s)
	}
	// An end in the middle of what is like the beginning is one.
	short := misbehave(0, Content("Once upon"), Finish("stop"))
	rest = onBehind(t, &Provider{OwnedBy: "vllm", Misbehave: short}, Config{}, chat(""), long)
	rest.check(t, "end", "")
	if s, _ := rest.text(); s != "Once upon" || rest.finish() != "stop" {
		t.Errorf("the rest is %q, finish %q", s, rest.finish())
	}
	// With fewer characters delivered there is no telling.
	rest = onBehind(t, &Provider{OwnedBy: "vllm", Misbehave: anew}, Config{}, chat(""), answer.items[:3])
	rest.check(t, "end", "")
}

// A stop string that began in delivered text ends the answer where it ends.
func TestStopStringAcrossTheJoint(t *testing.T) {
	for _, test := range []struct {
		name, stop, more string
		have             string
		next             []string
		want, finish     string
	}{
		{"across", `["END"]`, "", "a E", []string{"N", "D and", " more"}, "", "stop"},
		{"in one piece", `"END"`, "", "a EN", []string{"D and more"}, "", "stop"},
		{"shown", `["END"]`, `,"include_stop_str_in_output":true`, "a E", []string{"N", "D and more"}, "ND", "stop"},
		{"not after all", `["END"]`, "", "a E", []string{"N", "E"}, "NE", "length"},
		{"cut off at the end", `["END"]`, "", "a E", []string{"N"}, "N", "length"},
		{"whole in delivered text", `["END"]`, "", "a END", []string{"D"}, "D", "length"},
		{"one of several", `["xyz","E\n"]`, "", "a E", []string{"\n", "b"}, "", "stop"},
		{"behind the white space that is written again", `["\n\nQ:"]`, "", "a\n\n", []string{"\n", "\n", "Q", ": who"}, "", "stop"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &Provider{OwnedBy: "vllm", Misbehave: misbehave(0, Content(test.next...), Finish("length"))}
			rest := onBehind(t, p, Config{}, chat(`,"stop":`+test.stop+test.more), []stream.Annotated{{Data: stream.String(test.have)}})
			rest.check(t, "end", "")
			if s, _ := rest.text(); s != test.want || rest.finish() != test.finish {
				t.Errorf("the rest is %q, finish %q; want %q, %q; items:\n%s", s, rest.finish(), test.want, test.finish, rest)
			}
		})
	}
}

// A continuation that the engine refuses says nothing against the request.
func TestContinuationRefused(t *testing.T) {
	items := whole(t, "vllm", chat("")).items[:3]
	for _, status := range []int{400, 404, 413, 422} {
		p := &Provider{OwnedBy: "vllm", Misbehave: misbehave(0, Status(status, "no"))}
		onBehind(t, p, Config{}, chat(""), items).check(t, "unresumable", fmt.Sprint(status))
	}
	p := &Provider{OwnedBy: "vllm", Misbehave: misbehave(0, Events(`{"error":{"message":"no","code":400}}`))}
	onBehind(t, p, Config{}, chat(""), items).check(t, "unresumable", "gave an error")
	for status, kind := range map[int]string{500: "failed, not reported", 502: "failed", 503: "overloaded", 401: "failed, not reported"} {
		p := &Provider{OwnedBy: "vllm", Misbehave: misbehave(0, Status(status, "no"))}
		onBehind(t, p, Config{}, chat(""), items).check(t, kind, fmt.Sprint(status))
	}
}

// What is not carried on once something was delivered, each with its reason.
func TestNotCarriedOn(t *testing.T) {
	text := []stream.Annotated{{Data: stream.String("Once")}}
	chunk := func(choice string) []stream.Annotated {
		return []stream.Annotated{{Event: EventChunk, Data: rawMessage(`{"choices":[` + choice + `]}`)}}
	}
	prompt := func(more string) stream.Request { return body(completionsPath, `"prompt":"Say|"`+more) }
	for _, test := range []struct {
		name   string
		req    stream.Request
		items  []stream.Annotated
		reason string
	}{
		{"n above 1", chat(`,"n":2`), text, "n is above 1"},
		{"logprobs", chat(`,"logprobs":true`), text, "logprobs"},
		{"logprobs of completions", prompt(`,"logprobs":0`), text, "logprobs"},
		{"a response format", chat(`,"response_format":{"type":"json_object"}`), text, "response format"},
		{"a grammar", chat(`,"guided_json":{}`), text, "grammar"},
		{"a list of prompts", body(completionsPath, `"prompt":["a","b"]`), text, "prompt is not one text"},
		{"token ids", body(completionsPath, `"prompt":[1,2,3]`), text, "prompt is not one text"},
		{"echo", prompt(`,"echo":true`), text, "echoed"},
		{"suffix", prompt(`,"suffix":"end"`), text, "suffix"},
		{"best_of", prompt(`,"best_of":3`), text, "best_of"},
		{"several answers", chat(""), chunk(`{"index":1,"delta":{"content":"a"}}`), "one of several answers"},
		{"part of a call", chat(""), chunk(`{"index":0,"delta":{"tool_calls":[{"index":0}]}}`), "part of a tool call"},
		{"text with logprobs", chat(""), chunk(`{"index":0,"delta":{"content":"a"},"logprobs":{"content":[]}}`), "logprobs"},
		{"a refusal", chat(""), chunk(`{"index":0,"delta":{"refusal":"No"}}`), "no text"},
		{"half a character", chat(""), []stream.Annotated{{Data: rawMessage(`"a \ud83d"`)}}, "half a character"},
		{"another path's answer", chat(""), []stream.Annotated{{Event: EventSSE, Data: rawMessage(`{}`)}}, "event sse"},
		{"another path", body("/v1/responses", `"input":"Hi"`), text, "cannot be carried on"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &Provider{OwnedBy: "vllm"}
			onBehind(t, p, Config{}, test.req, test.items).check(t, "unresumable", test.reason)
			if n := len(p.Requests()); n != 0 {
				t.Errorf("the engine got %d requests", n)
			}
		})
	}
	for _, fine := range []string{`,"n":1`, `,"logprobs":false`, `,"response_format":{"type":"text"}`, `,"best_of":1`} {
		onBehind(t, &Provider{OwnedBy: "vllm"}, Config{}, chat(fine), text).check(t, "end", "")
	}
}

// A prefix that has no text is the original request, to the byte; without the
// items nothing can be done.
func TestPrefixWithoutText(t *testing.T) {
	answer := whole(t, "somebody", chat(`,"n":1,"max_tokens":30`))
	p := &Provider{OwnedBy: "somebody"}
	e := newEngine(t, p, Config{})
	req := chat(`,"n":1,"max_tokens":30`)
	ask(t, e, req).check(t, "end", "")
	req.Prefix = answer.items[:1]
	ask(t, e, req).check(t, "end", "")
	first, second := object(p.Requests()[0].Body).Bytes(), object(p.Requests()[1].Body).Bytes()
	if string(first) != string(second) {
		t.Errorf("the engine was asked\n%s, and then\n%s", first, second)
	}

	req = chat("")
	req.From = 3
	err := e.Handle(t.Context(), &req, func(stream.Annotated) error { return nil })
	if kindOfError(err) != "unresumable" {
		t.Errorf("from item 3 without the items: %v, want unresumable", err)
	}
}
