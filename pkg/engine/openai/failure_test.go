package openai

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	. "github.com/request-migration/migrate/pkg/engine/openai/openaitest" //nolint:revive // a language of steps
	"github.com/request-migration/migrate/pkg/stream"
)

// The table of failures, a row each. Each engine answers in two ways: before its
// first text, and behind two tokens.
func TestFailures(t *testing.T) {
	const apiError = `{"error":{"message":"no","code":CODE}}`
	object := func(code string) string { return strings.ReplaceAll(apiError, "CODE", code) }
	for _, test := range []struct {
		name  string
		after int // tokens
		steps []Step
		kind  string
		text  string // in the reason
	}{
		{"reset before the answer", 0, []Step{Reset()}, "failed", "broke"},
		{"reset behind text", 2, []Step{Reset()}, "failed", "broke"},
		{"closed before the answer", 0, []Step{Cut()}, "failed", "broke"},
		{"cut behind text", 2, []Step{Cut()}, "failed", "broke"},
		{"cut inside an event", 2, []Step{Raw(`data: {"choices":[{"ind`), Cut()}, "failed", "broke"},
		{"a clean end without a last word", 2, []Step{Raw("")}, "failed", "before its last word"},
		{"a clean end before any text", 0, []Step{Raw("")}, "failed", "before its last word"},
		{"[DONE] without a finish", 2, []Step{Events("[DONE]")}, "failed", "before its last word"},
		{"a clean end inside an event", 2, []Step{Raw(`data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`)}, "failed", "before its last word"},
		{"502", 0, []Step{Status(502, "bad gateway")}, "failed", "502 Bad Gateway: bad gateway"},
		{"504", 0, []Step{Status(504, "")}, "failed", "504"},
		{"finish_reason abort", 2, []Step{Finish("abort")}, "failed", "abort"},
		{"finish_reason error", 2, []Step{Finish("error")}, "failed", "error"},
		{"bad JSON", 2, []Step{Events("{nonsense}")}, "failed", "no JSON object"},
		{"no stream", 0, []Step{Status(200, `{"choices":[]}`)}, "failed", "no stream of events"},
		{"500", 0, []Step{Status(500, object("500"))}, "failed, not reported", "500 Internal Server Error"},
		{"an error object before the first item", 0, []Step{Events(object("500"), "[DONE]")}, "failed, not reported", "gave an error"},
		{"an error object that is a text", 0, []Step{Events(`{"error":"out of memory"}`)}, "failed, not reported", "out of memory"},
		{"an error object with code 400", 0, []Step{Events(object("400"), "[DONE]")}, "application", "gave an error"},
		{"an error object with code 404", 0, []Step{Events(object(`"404"`))}, "application", "gave an error"},
		{"an error object with code 408", 0, []Step{Events(object("408"))}, "failed, not reported", "gave an error"},
		{"an error object with code 429", 0, []Step{Events(object("429"))}, "failed, not reported", "gave an error"},
		{"an error object in place of a stream", 0, []Step{Status(200, object("400"))}, "application", "gave an error"},
		{"an error object later", 2, []Step{Events(object("400"))}, "failed", "gave an error"},
		{"an error object later, and then a last word", 2, []Step{Events(object("500")), Content("more"), Finish("stop")}, "failed", "gave an error"},
		{"an older error object later", 2, []Step{Events(`{"object":"error","message":"no","code":400}`)}, "failed", "gave an error"},
		{"429", 0, []Step{Status(429, "", "Retry-After", "7")}, "overloaded", "429 Too Many Requests"},
		{"503", 0, []Step{Status(503, "Loading model")}, "overloaded", "Loading model"},
		{"529", 0, []Step{Status(529, "")}, "overloaded", "529"},
		{"404 for a model that it listed", 0, []Step{Status(404, "no such model")}, "overloaded", "for a model that it lists"},
		{"401", 0, []Step{Status(401, "")}, "failed, not reported", "401"},
		{"403", 0, []Step{Status(403, "")}, "failed, not reported", "403"},
		{"408", 0, []Step{Status(408, "")}, "failed, not reported", "408"},
		{"409", 0, []Step{Status(409, "")}, "failed, not reported", "409"},
		{"425", 0, []Step{Status(425, "")}, "failed, not reported", "425"},
		{"400", 0, []Step{Status(400, object("400"))}, "application", "400 Bad Request"},
		{"413", 0, []Step{Status(413, "")}, "application", "413"},
		{"422", 0, []Step{Status(422, "")}, "application", "422"},
		{"501", 0, []Step{Status(501, "")}, "failed, not reported", "501"},
		{"a redirect", 0, []Step{Status(302, "", "Location", "/elsewhere")}, "failed, not reported", "302"},
		{"no content", 0, []Step{Status(204, "")}, "failed, not reported", "204"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &Provider{OwnedBy: "vllm", Misbehave: misbehave(test.after, test.steps...)}
			e := newEngine(t, p, Config{})
			got := ask(t, e, chat(""))
			got.check(t, test.kind, test.text)
			want := strings.Join(story()[:test.after], "")
			if s, _ := got.text(); s != want {
				t.Errorf("the client got %q, want %q", s, want)
			}
			// The connection was kept from the question for models: one that ends
			// without a byte of an answer is replaced.
			asked := 1
			if strings.HasSuffix(test.name, "before the answer") {
				asked = 2
			}
			if n := len(p.Requests()); n != asked {
				t.Errorf("the provider got %d requests, want %d", n, asked)
			}
		})
	}
}

func TestRefusedConnection(t *testing.T) {
	p := &Provider{OwnedBy: "vllm"}
	e := newEngine(t, p, Config{})
	ask(t, e, chat("")).check(t, "end", "")
	p.Stop()
	ask(t, e, chat("")).check(t, "failed", "refused")
}

// What the client gets of its own mistake is what the engine said.
func TestClientsMistakeAsItCame(t *testing.T) {
	const said = `{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error"}}`
	p := &Provider{OwnedBy: "llamacpp", Misbehave: misbehave(0, Status(400, said))}
	got := ask(t, newEngine(t, p, Config{}), chat(""))
	got.check(t, "application", "exceed_context_size_error")
	e, _ := errors.AsType[*stream.Error](got.err)
	if want := `{"body":` + said + `,"status":400}`; string(e.Data) != want {
		t.Errorf("data %s, want %s", e.Data, want)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 26, 8, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "1.5": 1500 * time.Millisecond, "-3": 0, "soon": 0, "1e30": time.Hour,
		"Thu, 26 Nov 2026 08:00:30 GMT": 30 * time.Second, "Thu, 26 Nov 2026 07:00:00 GMT": 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {value}}, now); got != want {
			t.Errorf("Retry-After: %s is %v, want %v", value, got, want)
		}
	}
}

// 404 for a model that the engine does not list is the client's mistake, and
// makes the list be read again.
func TestUnknownModel(t *testing.T) {
	p := &Provider{OwnedBy: "vllm", Misbehave: misbehave(0, Status(404, "no such model"))}
	e := newEngine(t, p, Config{})
	ask(t, e, body(chatPath, `"model":"other","messages":[]`)).check(t, "application", "404")
	select {
	case <-e.known.wanted:
	default:
		t.Error("the list of models is not read again")
	}
}

// Our own key is wrong: that is an error of ours, and told as one.
func TestWrongKey(t *testing.T) {
	var log strings.Builder
	p := &Provider{OwnedBy: "vllm", Misbehave: func(r Request) (int, []Step) {
		if r.Header.Get("Authorization") == "Bearer secret" {
			return 0, nil
		}
		return 0, []Step{Status(401, "Unauthorized")}
	}}
	key := "wrong"
	e := newEngine(t, p, Config{
		Key:    func() string { return key },
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	ask(t, e, chat("")).check(t, "failed, not reported", "401")
	if !strings.Contains(log.String(), "level=ERROR") || strings.Contains(log.String(), key) {
		t.Errorf("log: %q, want an error without the key", log.String())
	}
	key = "secret"
	ask(t, e, chat("")).check(t, "end", "")
}

// A server that does not know stream_options is asked again without, once.
func TestStreamOptionsRefused(t *testing.T) {
	p := &Provider{OwnedBy: "somebody", Misbehave: func(r Request) (int, []Step) {
		if r.Field("stream_options") != "" {
			return 0, []Step{Status(422, `{"detail":"extra field: stream_options"}`)}
		}
		return 0, nil
	}}
	e := newEngine(t, p, Config{})
	for range 2 {
		ask(t, e, chat("")).check(t, "end", "")
	}
	if n := len(p.Requests()); n != 3 {
		t.Errorf("the provider got %d requests, want 3: one refused, one again, one as was learnt", n)
	}
}

// A strict server gets nothing but the client's fields, and OpenAI's own.
func TestStrictServer(t *testing.T) {
	p := &Provider{OwnedBy: "somebody", Strict: true}
	ask(t, newEngine(t, p, Config{}), chat(`,"max_tokens":30`)).check(t, "end", "")
	p = &Provider{OwnedBy: "somebody", Strict: true}
	ask(t, newEngine(t, p, Config{}), chat(`,"top_k":3`)).check(t, "application", "top_k")
}

// A client that leaves ends the engine's work.
func TestClientLeaves(t *testing.T) {
	p := &Provider{OwnedBy: "vllm", Misbehave: misbehave(2, Hang())}
	e := newEngine(t, p, Config{})
	left := errors.New("the client left")
	req, items := chat(""), 0
	err := e.Handle(t.Context(), &req, func(stream.Annotated) error {
		if items++; items == 3 {
			return left
		}
		return nil
	})
	if !errors.Is(err, left) {
		t.Fatalf("ended with %v, want %v", err, left)
	}
	waitFor(t, p, "the engine's work is cancelled", func() bool { return p.Gone() == 1 })
}

// A kept connection that is dead is replaced once, and nobody is blamed.
func TestDeadKeptConnection(t *testing.T) {
	p := &Provider{OwnedBy: "vllm"}
	p.Misbehave = func(r Request) (int, []Step) {
		// The second request comes on the connection of the first, and ends there
		// without a byte. From the fifth on the fresh one does too.
		if r.Number == 2 || r.Number >= 5 {
			return 0, []Step{Cut()}
		}
		return 0, nil
	}
	e := newEngine(t, p, Config{})
	ask(t, e, chat("")).check(t, "end", "")
	e.lastReads.Wait() // the connection is kept
	ask(t, e, chat("")).check(t, "end", "")
	if n := len(p.Requests()); n != 3 {
		t.Errorf("the provider got %d requests, want 3: the second was made again", n)
	}

	ask(t, e, chat("")).check(t, "end", "")
	e.lastReads.Wait() // the connection is kept
	ask(t, e, chat("")).check(t, "failed", "broke")
	if n := len(p.Requests()); n != 6 {
		t.Errorf("the provider got %d requests, want 6: a connection is replaced once", n)
	}
}

// The server closes its idle connections, as llama.cpp does after 5 s.
func TestServerClosesIdleConnections(t *testing.T) {
	p := &Provider{OwnedBy: "llamacpp"}
	e := newEngine(t, p, Config{})
	for range 20 {
		ask(t, e, chat("")).check(t, "end", "")
		e.lastReads.Wait()
		waitFor(t, p, "no connection is busy", func() bool { return p.Busy() == 0 })
		p.CloseIdle()
	}
}

func TestBadRequests(t *testing.T) {
	e := newEngine(t, &Provider{OwnedBy: "vllm"}, Config{})
	for _, data := range []string{
		`42`, `null`, `[]`, `{}`, `{"path":"/v1/chat/completions"}`, `{"path":"/v1/chat/completions","body":[]}`,
		`{"path":"/metrics","body":{}}`, `{"path":"/v1/../admin","body":{}}`, `{"path":"/v1/models?x=1","body":{}}`,
	} {
		req := stream.Request{Data: json.RawMessage(data)}
		if got := ask(t, e, req); got.err == nil || !strings.Contains(got.err.Error(), "reading the request") {
			t.Errorf("%s: %v, want the request's own error", data, got.err)
		}
	}
}
