package openai

import (
	"fmt"
	"strings"
	"testing"

	. "github.com/request-migration/migrate/pkg/engine/openai/openaitest" //nolint:revive // a language of steps
	"github.com/request-migration/migrate/pkg/internal/rawjson"
	"github.com/request-migration/migrate/pkg/stream"
)

func TestItemsOfEachKind(t *testing.T) {
	const head = `"created":1700000000,"id":"chatcmpl-1","model":"test-model"`
	for _, test := range []struct {
		owner, items string
		sent         string // fields of the body, beside the client's
	}{
		{
			owner: "vllm",
			items: "head {" + head + `,"prompt_tokens":9}` + "\n" + `"Hi"` + "\n" + `{"text":" é","tokens":2}` + "\n" +
				`chunk {"choices":[{"delta":{},"finish_reason":"stop","index":0,"logprobs":null}]}` + "\n",
			sent: `"stream":true,"stream_options":{"continuous_usage_stats":true,"include_usage":true}`,
		},
		{
			owner: "sglang",
			items: "head {" + head + `,"prompt_tokens":9}` + "\n" + `"Hi"` + "\n" + `{"text":" é","tokens":2}` + "\n" +
				`chunk {"choices":[{"delta":{},"finish_reason":"stop","index":0,"logprobs":null}]}` + "\n",
			sent: `"stream":true,"stream_options":{"continuous_usage_stats":true,"include_usage":true}`,
		},
		{
			owner: "llamacpp",
			items: "head {" + head + `,"prompt_tokens":9}` + "\n" + `"Hi"` + "\n" + `{"text":" é","tokens":2}` + "\n" +
				`chunk {"choices":[{"delta":{},"finish_reason":"stop","index":0,"logprobs":null}]}` + "\n",
			sent: `"return_progress":true,"stream":true,"stream_options":{"include_usage":true},"timings_per_token":true`,
		},
		{
			owner: "library",
			items: "head {" + head + "}\n" + `"Hi"` + "\n" + `" é"` + "\n" +
				`chunk {"choices":[{"delta":{},"finish_reason":"stop","index":0,"logprobs":null}]}` + "\n",
			sent: `"stream":true,"stream_options":{"include_usage":true}`,
		},
		{
			owner: "somebody",
			items: "head {" + head + "}\n" + `"Hi"` + "\n" + `" é"` + "\n" +
				`chunk {"choices":[{"delta":{},"finish_reason":"stop","index":0,"logprobs":null}]}` + "\n",
			sent: `"stream":true,"stream_options":{"include_usage":true}`,
		},
	} {
		t.Run(test.owner, func(t *testing.T) {
			p := &Provider{OwnedBy: test.owner, Tokens: []string{"Hi", "", " é"}}
			e := newEngine(t, p, Config{})
			got := ask(t, e, stream.Request{Data: stream.String("Tell me a story")})
			got.check(t, "end", "")
			if got.String() != test.items {
				t.Errorf("items:\n%swant:\n%s", got, test.items)
			}
			const asked = `{"messages":[{"content":"Tell me a story","role":"user"}],"model":"test-model",`
			if sent := object(p.Requests()[0].Body).Bytes(); string(sent) != asked+test.sent+"}" {
				t.Errorf("sent\n%s, want\n%s", sent, asked+test.sent+"}")
			}
		})
	}
}

// What an engine may do and be right, or nearly so.
func TestItemsOfOddAnswers(t *testing.T) {
	usage := func(n int) string {
		return fmt.Sprintf(`"usage":{"prompt_tokens":9,"completion_tokens":%d,"total_tokens":%d}`, n, n+9)
	}
	text := func(s string) string { return Chunk(`{"content":"`+s+`"}`, "null") }
	stop := Chunk("{}", `"stop"`)
	for _, test := range []struct {
		name  string
		more  string // of the request's body
		steps []Step
		items string // without the head
	}{
		{
			name:  "the role twice",
			steps: []Step{Events(Chunk(`{"role":"assistant","content":""}`, "null"), Chunk(`{"role":"assistant","content":null}`, "null"), text("Hi"), stop, "[DONE]")},
			items: `"Hi"` + "\nchunk STOP\n",
		},
		{
			name:  "no usage though the client wants it",
			more:  `,"stream_options":{"include_usage":true}`,
			steps: []Step{Content("Hi"), Finish("stop")},
			items: `"Hi"` + "\nchunk STOP\n",
		},
		{
			name:  "usage on the finish chunk",
			more:  `,"stream_options":{"include_usage":true}`,
			steps: []Step{Content("Hi"), Events(with(stop, usage(1)), "[DONE]")},
			items: `"Hi"` + "\nchunk STOP\nchunk " + `{"choices":[],` + usage(1) + "}\n",
		},
		{
			name:  "usage on the finish chunk that the client does not want",
			steps: []Step{Content("Hi"), Events(with(stop, usage(1)), "[DONE]")},
			items: `"Hi"` + "\nchunk STOP\n",
		},
		{
			name:  "usage in each chunk, but not by itself",
			more:  `,"stream_options":{"include_usage":true}`,
			steps: []Step{Events(with(text("a"), usage(1)), with(text("b"), usage(2)), with(text("c"), usage(4)), stop, "[DONE]")},
			items: `"a"` + "\n" + `"b"` + "\n" + `{"text":"c","tokens":2}` + "\nchunk STOP\nchunk " + `{"choices":[],` + usage(4) + "}\n",
		},
		{
			name:  "usage by itself",
			more:  `,"stream_options":{"include_usage":true}`,
			steps: []Step{Content("Hi"), Events(stop, `{"id":"x","choices":[],`+usage(1)+`}`, "[DONE]")},
			items: `"Hi"` + "\nchunk STOP\nchunk " + `{"choices":[],` + usage(1) + "}\n",
		},
		{
			name:  "text on the finish chunk",
			steps: []Step{Events(Chunk(`{"content":"Hi"}`, `"stop"`), "[DONE]")},
			items: `"Hi"` + "\nchunk STOP\n",
		},
		{
			name:  "cut inside a character and inside an event",
			steps: []Step{Raw("da", "ta: "+text("H\xc3")[:20], text("H\xc3")[20:strings.Index(text("H\xc3"), "\xc3")+1], "\xa9"+text("H\xc3")[strings.Index(text("H\xc3"), "\xc3")+1:], "\n", "\nda", "ta: "+stop+"\n\ndata: [DO", "NE]\n", "\n")},
			items: `"Hé"` + "\nchunk STOP\n",
		},
		{
			name:  "CRLF",
			steps: []Step{Raw("data: "+text("Hi")+"\r\n\r", "\ndata: "+stop+"\r\n\r\n", "data: [DONE]\r\n\r\n")},
			items: `"Hi"` + "\nchunk STOP\n",
		},
		{
			name:  "comments",
			steps: []Step{Raw(": OPENROUTER PROCESSING\n\n", "data: "+text("Hi")+"\n\n", ":\n\n", "data: "+stop+"\n\n", ": ping\n\ndata: [DONE]\n\n")},
			items: `"Hi"` + "\nchunk STOP\n",
		},
		{
			name:  "data without a space",
			steps: []Step{Raw("data:"+text("Hi")+"\n\n", "data:"+stop+"\n\n", "data:[DONE]\n\n")},
			items: `"Hi"` + "\nchunk STOP\n",
		},
		{
			name:  "no [DONE], but a proper end",
			steps: []Step{Content("Hi"), Events(stop)},
			items: `"Hi"` + "\nchunk STOP\n",
		},
		{
			name:  "several choices in one chunk",
			more:  `,"n":2`,
			steps: []Step{Events(`{"id":"x","choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]}`, `{"choices":[{"index":0,"delta":{},"finish_reason":"stop"},{"index":1,"delta":{},"finish_reason":"stop"}]}`, "[DONE]")},
			items: `chunk {"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]}` + "\n" +
				`chunk {"choices":[{"index":0,"delta":{},"finish_reason":"stop"},{"index":1,"delta":{},"finish_reason":"stop"}]}` + "\n",
		},
		{
			name:  "logprobs with their text",
			more:  `,"logprobs":true`,
			steps: []Step{Events(`{"id":"x","choices":[{"index":0,"delta":{"content":"a"},"logprobs":{"content":[{"token":"a","logprob":-0.10}]}}]}`, stop, "[DONE]")},
			items: `chunk {"choices":[{"index":0,"delta":{"content":"a"},"logprobs":{"content":[{"token":"a","logprob":-0.10}]}}]}` + "\nchunk STOP\n",
		},
		{
			name:  "a refusal",
			steps: []Step{Events(Chunk(`{"refusal":"No."}`, "null"), stop, "[DONE]")},
			items: `chunk {"choices":[{"delta":{"refusal":"No."},"finish_reason":null,"index":0,"logprobs":null}]}` + "\nchunk STOP\n",
		},
		{
			name:  "fields that nobody knows, strings as they came",
			steps: []Step{Events(with(text(`<a href=\"\u00e9\">\ud83d\ude00 `), `"x_groq":{"id":"<\u00e9>"}`), stop, "[DONE]")},
			items: `"<a href=\"\u00e9\">\ud83d\ude00 "` + "\n" +
				`chunk {"choices":[{"delta":{},"finish_reason":null,"index":0,"logprobs":null}],"x_groq":{"id":"<\u00e9>"}}` + "\nchunk STOP\n",
		},
		{
			name:  "data on several lines",
			steps: []Step{Raw("data: {\"id\":\"x\",\ndata: \"choices\":[{\"index\":0,\ndata: \"delta\":{\"refusal\":\n", "data: \"No\"}}]}\n\n"), Events(stop, "[DONE]")},
			items: `chunk {"choices":[{"delta":{"refusal":"No"},"index":0}]}` + "\nchunk STOP\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &Provider{OwnedBy: "vllm", Misbehave: misbehave(0, test.steps...)}
			got := ask(t, newEngine(t, p, Config{}), chat(test.more))
			got.check(t, "end", "")
			_, items, _ := strings.Cut(got.String(), "\n")
			want := strings.ReplaceAll(test.items, "STOP", `{"choices":[{"delta":{},"finish_reason":"stop","index":0,"logprobs":null}]}`)
			if items != want || got.items[0].Event != EventHead {
				t.Errorf("items:\n%swant a head and\n%s", got, want)
			}
		})
	}
}

// with adds fields to a JSON object.
func with(chunk, fields string) string { return chunk[:len(chunk)-1] + "," + fields + "}" }

// An event of 1 MiB is divided into items that a line can hold.
func TestLongEvent(t *testing.T) {
	long := strings.Repeat(`é\n\ud83d\ude00`, 1<<16)
	p := &Provider{OwnedBy: "vllm", Misbehave: misbehave(0, Events(Chunk(`{"content":"`+long+`"}`, "null")), Finish("stop"))}
	got := ask(t, newEngine(t, p, Config{}), chat(""))
	got.check(t, "end", "")
	var joined strings.Builder
	for _, a := range got.items[1 : len(got.items)-1] {
		if len(a.Data) > stream.MaxLine/2 {
			t.Errorf("an item has %d bytes", len(a.Data))
		}
		s, ok := a.Text()
		if !ok { // the further parts have no tokens of their own
			o, err := rawjson.Read(a.Data)
			s, ok = o.Str("text"), err == nil && string(o["tokens"]) == "0"
		}
		if !ok || strings.ContainsRune(s, '�') {
			t.Fatalf("an item is not whole text: %.80q", a.Data)
		}
		joined.WriteString(s)
	}
	if want := strings.Repeat("é\n😀", 1<<16); joined.String() != want {
		t.Errorf("the text has %d bytes, want %d as they came", joined.Len(), len(want))
	}
}

// The client's own wish for figures is heeded.
func TestFiguresThatTheClientWants(t *testing.T) {
	p := &Provider{OwnedBy: "llamacpp", Tokens: []string{"Hi"}}
	got := ask(t, newEngine(t, p, Config{}), chat(`,"timings_per_token":true,"return_progress":true`))
	got.check(t, "end", "")
	for _, want := range []string{`"prompt_progress":{"total":9`, `"timings":{"cache_n":2,"prompt_n":7,"predicted_n":1}`} {
		if !strings.Contains(got.String(), want) {
			t.Errorf("no %s among the items:\n%s", want, got)
		}
	}
}

func TestCompletions(t *testing.T) {
	p := &Provider{OwnedBy: "vllm"}
	e := newEngine(t, p, Config{})
	got := ask(t, e, body(completionsPath, `"prompt":"Say|","stream_options":{"include_usage":true}`))
	got.check(t, "end", "")
	if s, n := got.text(); s != strings.Join(story(), "") || n != len(story()) || got.finish() != "stop" {
		t.Errorf("%d tokens, finish %q, text %q", n, got.finish(), s)
	}
	if last := got.items[len(got.items)-1]; !strings.Contains(string(last.Data), `"completion_tokens":21`) {
		t.Errorf("the last item is %s, want usage", last.Data)
	}
}
