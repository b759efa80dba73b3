package openai

import (
	"strings"
	"testing"

	. "github.com/request-migration/migrate/pkg/engine/openai/openaitest" //nolint:revive // a language of steps
	"github.com/request-migration/migrate/pkg/internal/rawjson"
	"github.com/request-migration/migrate/pkg/stream"
)

// Other paths pass as they are, streams event by event.
func TestOtherPaths(t *testing.T) {
	for _, test := range []struct {
		name, path, more string
		steps            []Step
		kind             string
		items            string
	}{
		{
			"an embedding", "/v1/embeddings", `"input":"Hi"`,
			[]Step{Status(200, `{"data":[{"embedding":[0.10]}]}`, "X-Request-Id", "r1")}, "end",
			`response {"body":"{\"data\":[{\"embedding\":[0.10]}]}","headers":{"Content-Type":"application/json","X-Request-Id":"r1"},"status":200}` + "\n",
		},
		{
			"events", "/v1/responses", `"input":"Hi","stream":true`,
			[]Step{Raw("event: response.created\ndata: {\"a\":1}\n\n", "data: two\ndata: lines\n\n")}, "end",
			`response {"headers":{"Content-Type":"text/event-stream; charset=utf-8"},"status":200}` + "\n" +
				`sse {"data":"{\"a\":1}","event":"response.created"}` + "\nsse " + `{"data":"two\nlines"}` + "\n",
		},
		{
			"events that break", "/v1/responses", `"input":"Hi","stream":true`,
			[]Step{Raw("data: 1\n\n"), Cut()}, "failed",
			`response {"headers":{"Content-Type":"text/event-stream; charset=utf-8"},"status":200}` + "\nsse " + `{"data":"1"}` + "\n",
		},
		{
			"what engines do not stream", "/v1/chat/completions", `"messages":[],"prompt_logprobs":1`,
			[]Step{Status(200, `{}`)}, "end",
			`response {"body":"{}","headers":{"Content-Type":"application/json"},"status":200}` + "\n",
		},
		{"a refusal", "/v1/rerank", `"query":"Hi"`, []Step{Status(400, "no")}, "application", ""},
		{"an unknown path", "/v1/nonsense", ``, []Step{Status(404, "no")}, "overloaded", ""},
		{"an engine's error", "/v1/rerank", ``, []Step{Status(500, "no")}, "failed, not reported", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &Provider{OwnedBy: "vllm", Misbehave: misbehave(0, test.steps...)}
			got := ask(t, newEngine(t, p, Config{}), body(test.path, test.more))
			got.check(t, test.kind, "")
			if got.String() != test.items {
				t.Errorf("items:\n%swant:\n%s", got, test.items)
			}
			if r := p.Requests()[0]; r.Path != test.path || r.Field("stream_options") != "" {
				t.Errorf("the engine was asked at %s, with stream_options %q", r.Path, r.Field("stream_options"))
			}
		})
	}
}

// A long body is divided between characters.
func TestLongBody(t *testing.T) {
	long := strings.Repeat("é€😀\n", 1<<17)
	p := &Provider{OwnedBy: "vllm", Misbehave: misbehave(0, Status(200, long))}
	got := ask(t, newEngine(t, p, Config{}), body("/v1/embeddings", ``))
	got.check(t, "end", "")
	var joined strings.Builder
	for _, a := range got.items {
		if len(a.Data) > stream.MaxLine/2 {
			t.Errorf("an item has %d bytes", len(a.Data))
		}
		o, _ := rawjson.Read(a.Data)
		joined.WriteString(o.Str("body"))
	}
	if joined.String() != long {
		t.Errorf("the body has %d bytes, want %d as they came", joined.Len(), len(long))
	}
}

// Headers that tell whose request it is go to the engine; others, and the client's
// key, do not.
func TestHeadersToTheEngine(t *testing.T) {
	p := &Provider{OwnedBy: "vllm"}
	req := chat("")
	req.Headers = map[string]string{
		"traceparent": "00-1-2-01", "tracestate": "a=b", "x-session-id": "s1", "authorization": "Bearer client", "cookie": "c",
	}
	ask(t, newEngine(t, p, Config{}), req).check(t, "end", "")
	h := p.Requests()[0].Header
	for name, want := range map[string]string{
		"Traceparent": "00-1-2-01", "Tracestate": "a=b", "X-Session-Id": "s1", "X-Request-Id": req.ID,
		"Authorization": "", "Cookie": "", "Accept-Encoding": "identity",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
