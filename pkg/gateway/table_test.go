package gateway

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/request-migration/migrate/pkg/engine/openai/openaitest" //nolint:revive // a language of steps
	"github.com/request-migration/migrate/pkg/router"
)

// spare is the provider of the fallback model.
func spare() engine {
	return engine{name: "b", Provider: &Provider{OwnedBy: "vllm", Models: []string{"spare"}}}
}

// mainly is a provider of the model that is asked for.
func mainly(p *Provider) engine {
	p.Models = []string{"main"}
	if p.OwnedBy == "" {
		p.OwnedBy = "vllm"
	}
	return engine{name: "a", Provider: p}
}

// second is another such provider.
func second(p *Provider) engine {
	e := mainly(p)
	e.name = "b"
	return e
}

// The table of what a provider may do: what the client gets, what the provider and the
// fallback's saw, and within which time.
func TestTable(t *testing.T) {
	const contextError = `{"error":{"message":"This model's maximum context length is 8 tokens","type":"invalid_request_error","code":"context_length_exceeded"}}`
	const llamaError = `{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error"}}`
	for _, test := range []struct {
		name      string
		misbehave func(Request) (int, []Step)
		model     string        // that answers
		asked     [2]int        // how often the provider was asked, from and to
		spare     int           // how often the fallback's was
		within    time.Duration // 0: at once, within a second
		not       time.Duration // not before
	}{
		{"429 with Retry-After: 2 once", times(1, 0, Status(429, "", "Retry-After", "2")), "main", [2]int{2, 2}, 0, 8 * time.Second, 2 * time.Second},
		{"429 always, no header", always(0, Status(429, "")), "spare", [2]int{1, 4}, 1, 8 * time.Second, 0},
		{"500 once", times(1, 0, Status(500, "")), "main", [2]int{2, 2}, 0, 2 * time.Second, 0},
		{"503 always", always(0, Status(503, "")), "spare", [2]int{1, 4}, 1, 8 * time.Second, 0},
		{"reset before the headers, once", times(1, 0, Reset()), "main", [2]int{2, 2}, 0, 2 * time.Second, 0},
		{"accepts and never answers", always(0, Silent()), "spare", [2]int{1, 1}, 1, 15 * time.Second, 0},
		{"first token after 20 s", always(0, Hang()), "spare", [2]int{1, 1}, 1, 15 * time.Second, 0},
		{"cut after 40 of 60 tokens, no last chunk", times(1, 40, Cut()), "spare", [2]int{1, 1}, 1, 0, 0},
		{"the same with a clean end", times(1, 40, Raw("")), "spare", [2]int{1, 1}, 1, 0, 0},
		{"silent after 20 tokens, connection open", times(1, 20, Hang()), "spare", [2]int{1, 1}, 1, 15 * time.Second, 0},
		{"an event broken in the middle", times(1, 20, Raw("data: {\"choices\":[{\"ind\n\n")), "spare", [2]int{1, 1}, 1, 0, 0},
		{"context length, as OpenAI says it", always(0, Status(400, contextError)), "spare", [2]int{1, 1}, 1, 0, 0},
		{"context length, as llama.cpp says it", always(0, Status(400, llamaError)), "spare", [2]int{1, 1}, 1, 0, 0},
		{"401", always(0, Status(401, "")), "spare", [2]int{1, 4}, 1, 8 * time.Second, 0},
		{"cut between the finish and the usage", times(1, 60, Events(Chunk(`{}`, `"length"`)), Cut()), "spare", [2]int{1, 1}, 0, 0, 0},
		{"finish_reason abort in the middle", times(1, 20, Finish("abort")), "spare", [2]int{1, 1}, 1, 0, 0},
		{"an error object in the middle", times(1, 20, Events(`{"error":{"message":"no","code":500}}`)), "spare", [2]int{1, 1}, 1, 0, 0},
		{"an error object, and then [DONE]", times(1, 20, Events(`{"error":{"message":"no","code":500}}`, "[DONE]")), "spare", [2]int{1, 1}, 1, 0, 0},
	} {
		for _, how := range []string{"streamed", "whole"} {
			t.Run(test.name+"/"+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBed(t, Config{Fallbacks: map[string]string{"main": "spare"}}, mainly(&Provider{Misbehave: test.misbehave}), spare())
					var g got
					if how == "streamed" {
						g = b.ask(chatPath, streamedChat)
						if s := g.isWhole(t); s.model != test.model {
							t.Errorf("the model is %q, want %q", s.model, test.model)
						}
					} else {
						g = b.ask(chatPath, wholeChat)
						text, finish, usage := g.messageOf(t)
						if text != strings.Join(words(60), "") || finish != "length" || usage != "9/60/69" {
							t.Errorf("status %d: %q, %s, %s", g.status, text, finish, usage)
						}
					}
					within := max(test.within, time.Second)
					if g.took > within || g.took < test.not {
						t.Errorf("it took %v, want %v to %v", g.took, test.not, within)
					}
					if n := len(b.providers["a"].Requests()); n < test.asked[0] || n > test.asked[1] {
						t.Errorf("the provider was asked %d times, want %v", n, test.asked)
					}
					requests := b.providers["a"].Requests()
					for n := 1; n < len(requests); n++ {
						if d := requests[n].Time.Sub(requests[n-1].Time); d < 400*time.Millisecond && strings.HasPrefix(test.name, "429") {
							t.Errorf("the provider was asked again after %v", d)
						}
					}
					if n := len(b.providers["b"].Requests()); n != test.spare {
						t.Errorf("the fallback's provider was asked %d times, want %d", n, test.spare)
					}
				})
			})
		}
	}
}

// A stream that was cut goes on by prefix: the next engine gets the tokens so far as the
// beginning of its answer, and the tokens that are left.
func TestByPrefix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, Config{Fallbacks: map[string]string{"*": "spare"}}, mainly(&Provider{Misbehave: times(1, 40, Cut())}), spare())
		s := b.ask(chatPath, streamedChat).isWhole(t)
		r := b.providers["b"].Requests()[0]
		role, content := r.LastMessage()
		if role != "assistant" || content != strings.Join(words(40), "") || r.Field("max_tokens") != "20" {
			t.Errorf("the second engine got %s %q and max_tokens %s", role, content, r.Field("max_tokens"))
		}
		if len(s.comments) != 1 || !strings.HasPrefix(s.comments[0], `migrated {"from":"a","to":"b","item":41,`) || !strings.Contains(s.comments[0], `"kind":"failed","way":"prefix"`) {
			t.Errorf("the comments are %q", s.comments)
		}
		if e := b.last(); e.TokensIn != 9 || e.TokensOut != 60 || len(e.Migrations) != 1 || strings.Join(e.Instances, " ") != "a b" || e.Status != 200 {
			t.Errorf("the entry is %+v", e)
		}
	})
}

// A content filter's refusal, and any other mistake of the client's, comes as the engine said
// it. Nobody else is asked.
func TestClientsMistake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const said = `{"error":{"message":"filtered","type":"invalid_request_error","code":"content_filter"}}`
		b := newBed(t, Config{Fallbacks: map[string]string{"*": "spare"}}, mainly(&Provider{Misbehave: always(0, Status(400, said))}), spare())
		for _, body := range []string{streamedChat, wholeChat} {
			if g := b.ask(chatPath, body); g.status != 400 || strings.TrimSpace(g.body) != said {
				t.Errorf("status %d: %s", g.status, g.body)
			}
		}
		if a, s := len(b.providers["a"].Requests()), len(b.providers["b"].Requests()); a != 2 || s != 0 {
			t.Errorf("the engines were asked %d and %d times, want 2 and 0", a, s)
		}
	})
}

// Without a fallback a wrong key of ours is a bad gateway.
func TestOurKeyIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, Config{WaitRestore: -1}, mainly(&Provider{Misbehave: always(0, Status(401, ""))}))
		if g := b.ask(chatPath, streamedChat); g.status != http.StatusBadGateway || g.header.Get("X-Should-Retry") != "false" {
			t.Errorf("status %d, %v: %s", g.status, g.header, g.body)
		}
	})
}

// A complete stream without [DONE] is complete.
func TestNoDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		finish := Chunk(`{}`, `"length"`)
		b := newBed(t, Config{}, mainly(&Provider{Misbehave: always(60, Events(finish[:len(finish)-1]+`,"usage":{"prompt_tokens":9,"completion_tokens":60,"total_tokens":69}}`))}))
		if g := b.ask(chatPath, strings.Replace(streamedChat, `"max_tokens":60,`, "", 1)); g.took > time.Second {
			t.Errorf("it took %v", g.took)
		} else {
			g.isWhole(t)
		}
	})
}

// A fallback that refuses a trailing assistant message begins anew, and is compared.
func TestFallbackIsReplayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := spare()
		other.Misbehave = func(r Request) (int, []Step) {
			if role, _ := r.LastMessage(); role == "assistant" {
				return 0, []Step{Status(400, `{"error":{"message":"the last message must be the user's"}}`)}
			}
			return 0, nil
		}
		b := newBed(t, Config{Fallbacks: map[string]string{"*": "spare"}}, mainly(&Provider{Misbehave: times(1, 40, Cut())}), other)
		b.ask(chatPath, streamedChat).isWhole(t)
	})
}

// A second whole answer in place of a continuation is never joined to the first.
func TestSecondWholeAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := spare()
		other.Misbehave = always(0, Content(words(60)...), Finish("stop"))
		b := newBed(t, Config{Fallbacks: map[string]string{"*": "spare"}, WaitRestore: -1}, mainly(&Provider{Misbehave: times(1, 40, Cut())}), other)
		s := b.ask(chatPath, strings.Replace(streamedChat, `"stream_options":{"include_usage":true},`, "", 1)).read(t)
		if s.text != strings.Join(words(60), "") && (s.err == "" || s.done) {
			t.Errorf("the text is %q, the error %q, [DONE] %v", s.text, s.err, s.done)
		}
	})
}

// The only engine is cut, and back after 5 s.
func TestOnlyEngineReturns(t *testing.T) {
	for _, body := range []string{streamedChat, wholeChat} {
		synctest.Test(t, func(t *testing.T) {
			var b *bed
			stop := func(*Wire) bool {
				go func() {
					b.providers["a"].Stop()
					time.Sleep(5 * time.Second)
					if err := b.providers["a"].Start(); err != nil {
						t.Error(err)
					}
				}()
				panic(http.ErrAbortHandler)
			}
			b = newBed(t, Config{}, mainly(&Provider{Misbehave: times(1, 40, stop)}))
			g := b.ask(chatPath, body)
			if body == streamedChat {
				g.isWhole(t)
			} else if text, _, usage := g.messageOf(t); text != strings.Join(words(60), "") || usage != "9/60/69" {
				t.Errorf("%q, %s", text, usage)
			}
			if g.took < 5*time.Second || g.took > 20*time.Second {
				t.Errorf("it took %v", g.took)
			}
		})
	}
}

// What was thought so far is thought again elsewhere while nothing else has come; a tool call
// that is cut is whole; a response format that is not streamed begins anew.
func TestReasoningCallsAndFormats(t *testing.T) {
	thoughts := []string{"let", " me", " think"}
	call := []string{`{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":""}}]}`, `{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":"}}]}`, `{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]}`}
	for _, test := range []struct {
		name  string
		first *Provider
		body  string
		check func(t *testing.T, g got)
	}{
		{"cut in the reasoning", &Provider{Reasoning: thoughts, Misbehave: times(1, 2, Cut())}, streamedChat, func(t *testing.T, g got) {
			t.Helper()
			if s := g.read(t); s.text != strings.Join(words(57), "") || s.reasoning != "let me\n\nlet me think" || !s.done {
				t.Errorf("reasoning %q, text %q, error %q, comments %q", s.reasoning, s.text, s.err, s.comments)
			}
		}},
		{"cut after the reasoning", &Provider{Reasoning: thoughts, Misbehave: times(1, 10, Cut())}, streamedChat, func(t *testing.T, g got) {
			t.Helper()
			if s := g.read(t); s.text != strings.Join(words(57), "") || s.reasoning != "let me think" || !s.done {
				t.Errorf("reasoning %q, text %q, error %q, comments %q", s.reasoning, s.text, s.err, s.comments)
			}
		}},
		{"cut in a tool call", &Provider{Tokens: []string{"ok"}, Calls: call, Misbehave: times(1, 1, Events(Chunk(call[0], "null"), Chunk(call[1], "null")), Cut())}, streamedChat, func(t *testing.T, g got) {
			t.Helper()
			if s := g.read(t); s.text != "ok" || s.calls != `{"a":1}` || !s.done || len(s.finish) != 1 {
				t.Errorf("text %q, arguments %q, finish %v, error %q", s.text, s.calls, s.finish, s.err)
			}
		}},
		{"a response format, not streamed, cut", &Provider{Misbehave: times(1, 40, Cut())}, strings.Replace(wholeChat, `"max_tokens"`, `"response_format":{"type":"json_object"},"max_tokens"`, 1), func(t *testing.T, g got) {
			t.Helper()
			if text, _, usage := g.messageOf(t); text != strings.Join(words(60), "") || usage != "9/60/69" {
				t.Errorf("%q, %s", text, usage)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				second := second(&Provider{OwnedBy: "vllm", Reasoning: test.first.Reasoning, Tokens: test.first.Tokens, Calls: test.first.Calls})
				first := mainly(test.first)
				// A picker that asks the one that breaks first.
				b := newBed(t, Config{Picker: byName}, first, second)
				test.check(t, b.ask(chatPath, test.body))
			})
		})
	}
}

// Down for 60 s, then up, with a request every 4 s: every one is answered, and the provider is
// used again within 10 s of its return.
func TestDownForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, Config{Fallbacks: map[string]string{"*": "spare"}}, mainly(&Provider{}), spare())
		a := b.providers["a"]
		a.Stop()
		began := time.Now()
		back := time.Time{}
		for time.Since(began) < 90*time.Second {
			if back.IsZero() && time.Since(began) >= time.Minute {
				if err := a.Start(); err != nil {
					t.Fatal(err)
				}
				back = time.Now()
			}
			b.ask(chatPath, streamedChat).isWhole(t)
			if n := len(a.Requests()); !back.IsZero() && n == 0 && time.Since(back) > 10*time.Second {
				t.Fatalf("%v after its return the provider is not used", time.Since(back))
			}
			time.Sleep(4 * time.Second)
		}
		if len(a.Requests()) == 0 {
			t.Error("the provider was never used again")
		}
	})
}

// byName returns a picker that picks the instance whose name comes first.
func byName() router.Picker { return firstName{} }

type firstName struct{}

func (firstName) Pick(_ router.Choice, avail []*router.Peer) *router.Peer {
	return slices.MinFunc(avail, func(a, b *router.Peer) int { return strings.Compare(a.Name, b.Name) })
}

// What cannot be carried on once something was delivered, and is another answer when it begins
// anew, ends with an error in the stream and an aborted connection: nothing is passed off as
// the whole, and two answers are never joined.
func TestCannotCarryOn(t *testing.T) {
	for _, more := range []string{`"n":2`, `"logprobs":true`, `"response_format":{"type":"json_object"}`} {
		t.Run(more, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logged := func(word string, n int) []string {
					chunks := make([]string, n)
					for i := range chunks {
						chunk := Chunk(`{"content":" `+word+strconv.Itoa(i)+`"}`, "null")
						if more == `"logprobs":true` {
							chunk = strings.Replace(chunk, `"logprobs":null`, `"logprobs":{"content":[{"token":" w"}]}`, 1)
						}
						if more == `"n":2` && i%2 == 1 {
							chunk = strings.Replace(chunk, `"index":0`, `"index":1`, 1)
						}
						chunks[i] = chunk
					}
					return chunks
				}
				second := second(&Provider{Misbehave: always(0, Events(logged("v", 60)...), Finish("stop"))})
				b := newBed(t, Config{Picker: byName, WaitRestore: -1},
					mainly(&Provider{Misbehave: times(1, 0, Events(logged("w", 20)...), Cut())}), second)
				g := b.ask(chatPath, strings.Replace(streamedChat, `"max_tokens"`, more+`,"max_tokens"`, 1))
				s := g.read(t)
				if !g.aborted || s.done || !strings.HasPrefix(s.err, "cannot_resume: ") || strings.Contains(s.text, "v") || !strings.HasSuffix(s.text, " w19") {
					t.Errorf("aborted %v, [DONE] %v, error %q, text %q", g.aborted, s.done, s.err, s.text)
				}
			})
		})
	}
}
