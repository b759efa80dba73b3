package openai

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/engine/openai/openaitest"
	"github.com/request-migration/migrate/pkg/stream"
)

// story is an answer in tokens, of which some have no text of their own.
func story() []string {
	return []string{"Once", " upon", " a", " time", ",", "", "", " é", " lived", " a", "\n\n", " fox", ".", " It", " was", " red", ".", "\n", "The", " end", "."}
}

// newEngine starts the provider and returns it as an engine.
func newEngine(t *testing.T, p *openaitest.Provider, cfg Config) *Engine {
	t.Helper()
	if p.Tokens == nil {
		p.Tokens = story()
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	cfg.URL = p.URL()
	if p.InMemory {
		cfg.Dial = p.Dial
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// asked is what became of a request.
type asked struct {
	items []stream.Annotated
	err   error
}

// ask asks the engine. The answer must come within five minutes, some of which are fake.
func ask(t *testing.T, e *Engine, req stream.Request) asked {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var got asked
	req.From = len(req.Prefix)
	got.err = e.Handle(ctx, &req, func(a stream.Annotated) error {
		if !json.Valid(a.Data) {
			t.Errorf("an item is no JSON: %q", a.Data)
		}
		a.Data = append(json.RawMessage(nil), a.Data...) // the handler may reuse it
		got.items = append(got.items, a)
		return nil
	})
	if errors.Is(got.err, context.DeadlineExceeded) {
		t.Fatalf("no answer within five minutes; items so far: %s", got)
	}
	return got
}

// String shows the items, one a line.
func (r asked) String() string {
	var b strings.Builder
	for _, a := range r.items {
		if a.Event != "" {
			b.WriteString(a.Event + " ")
		}
		b.Write(a.Data)
		b.WriteByte('\n')
	}
	return b.String()
}

// text returns the text, and how many tokens it has.
func (r asked) text() (string, int) {
	so, err := readPrefix(&stream.Request{Prefix: r.items, From: len(r.items)})
	if err != nil {
		panic(err)
	}
	return so.text, so.tokens
}

// finish returns the finish_reason; "" if there is none.
func (r asked) finish() string {
	for _, a := range r.items {
		var chunk struct {
			Choices []struct {
				Finish string `json:"finish_reason"`
			}
		}
		if a.Event == EventChunk && json.Unmarshal(a.Data, &chunk) == nil && len(chunk.Choices) > 0 && chunk.Choices[0].Finish != "" {
			return chunk.Choices[0].Finish
		}
	}
	return ""
}

// withText returns the items up to the one with which the text has n bytes.
func (r asked) upTo(n int) []stream.Annotated {
	for i := range r.items {
		if s, _ := (asked{items: r.items[:i+1]}).text(); len(s) >= n {
			return r.items[:i+1]
		}
	}
	return r.items
}

// chat returns a request for a chat, with more fields of the body.
func chat(more string) stream.Request {
	return body(chatPath, `"messages":[{"role":"user","content":"Tell me a story"}]`+more)
}

func body(path, fields string) stream.Request {
	return stream.Request{ID: "b1946ac9d2c41f08", Data: json.RawMessage(`{"path":"` + path + `","body":{` + fields + `}}`)}
}

// misbehave makes a provider do the same for each request.
func misbehave(after int, steps ...openaitest.Step) func(openaitest.Request) (int, []openaitest.Step) {
	return func(openaitest.Request) (int, []openaitest.Step) { return after, steps }
}

// kindOfError returns how a stream ends with that error.
func kindOfError(err error) string {
	var application *stream.Error
	switch {
	case err == nil:
		return "end"
	case errors.As(err, &application):
		return "application"
	case errors.Is(err, stream.ErrUnresumable):
		return "unresumable"
	case errors.Is(err, stream.ErrOverloaded):
		return "overloaded"
	case errors.Is(err, stream.ErrFailedUnreported):
		return "failed, not reported"
	case errors.Is(err, stream.ErrFailed):
		return "failed"
	}
	return err.Error()
}

// check fails the test unless the request ended that way, with that in its text.
func (r asked) check(t *testing.T, kind, text string) {
	t.Helper()
	if got := kindOfError(r.err); got != kind {
		t.Fatalf("ended as %q (%v), want %q; items:\n%s", got, r.err, kind, r)
	}
	if r.err != nil && !strings.Contains(r.err.Error(), text) {
		t.Errorf("ended with %q, want %q in it", r.err, text)
	}
}

// waitFor waits until the provider has seen what is wanted.
func waitFor(t *testing.T, p *openaitest.Provider, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.Wait(ctx, cond); err != nil {
		t.Fatalf("not within a minute: %s; %d connections are idle, %d are not", what, p.Idle(), p.Busy())
	}
}
