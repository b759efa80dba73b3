package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/engine/openai"
	. "github.com/request-migration/migrate/pkg/engine/openai/openaitest" //nolint:revive // a language of steps
)

// words is an answer of n tokens.
func words(n int) []string {
	tokens := make([]string, n)
	for i := range tokens {
		tokens[i] = fmt.Sprintf(" w%d", i)
	}
	tokens[0] = "w0"
	return tokens
}

// bed is a gateway in front of providers in memory, in fake time.
type bed struct {
	t         *testing.T
	g         *Gateway
	providers map[string]*Provider // by the engine's name
	mu        sync.Mutex
	entries   []Entry
}

// engine is an engine of a bed.
type engine struct {
	name string
	*Provider
	cfg openai.Config
}

// newBed starts a gateway, and returns when it knows its engines. It ends with the test's
// bubble.
func newBed(t *testing.T, cfg Config, engines ...engine) *bed {
	t.Helper()
	b := startBed(t, cfg, engines...)
	<-b.g.cfg.Engines.known
	time.Sleep(time.Second) // until the routers know all instances
	synctest.Wait()
	return b
}

// startBed starts a gateway that knows nothing yet.
func startBed(t *testing.T, cfg Config, engines ...engine) *bed {
	t.Helper()
	b := &bed{t: t, providers: map[string]*Provider{}}
	byName := map[string]*openai.Engine{}
	for _, e := range engines {
		p := e.Provider
		p.InMemory = true
		if p.Tokens == nil {
			p.Tokens = words(60)
		}
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Stop)
		b.providers[e.name] = p
		e.cfg.URL, e.cfg.Dial = p.URL(), p.Dial
		if e.cfg.FirstItemTimeout == 0 {
			e.cfg.FirstItemTimeout, e.cfg.ItemTimeout = 10*time.Second, 10*time.Second
		}
		made, err := openai.New(e.cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(made.Close)
		byName[e.name] = made
	}
	all := NewEngines("test", byName, slog.New(slog.DiscardHandler))
	cfg.Engines = all
	cfg.Done = func(e *Entry) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.entries = append(b.entries, e.clone())
	}
	b.g = New(cfg)
	t.Cleanup(func() {
		b.g.Close()
		all.Close()
	})
	return b
}

// last returns the entry of the request that ended last.
func (b *bed) last() Entry {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.entries) == 0 {
		b.t.Fatal("no request is over")
	}
	return b.entries[len(b.entries)-1]
}

// got is what a client has got.
type got struct {
	status  int
	header  http.Header
	body    string
	aborted bool
	took    time.Duration
}

// ask makes a request, and answers when it is over.
func (b *bed) ask(path, body string, headers ...string) got {
	b.t.Helper()
	return b.askUntil(b.t.Context(), path, body, headers...)
}

func (b *bed) askUntil(ctx context.Context, path, body string, headers ...string) (g got) {
	b.t.Helper()
	began := time.Now()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, path, strings.NewReader(body))
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	defer func() {
		if v := recover(); v != nil {
			if v != http.ErrAbortHandler { //nolint:errorlint // it is thrown as it is
				panic(v)
			}
			g = got{aborted: true}
		}
		g.status, g.header, g.body, g.took = w.Code, w.Header(), w.Body.String(), time.Since(began)
	}()
	b.g.ServeHTTP(w, r)
	return got{}
}

const (
	streamedChat = `{"model":"main","stream":true,"stream_options":{"include_usage":true},"max_tokens":60,"messages":[{"role":"user","content":"hello"}]}`
	wholeChat    = `{"model":"main","max_tokens":60,"messages":[{"role":"user","content":"hello"}]}`
)

// streamOf is what a client makes of a stream.
type streamOf struct {
	text, reasoning string
	ids             map[string]bool
	roles           int
	finish          []string
	usage           string
	model           string
	done            bool
	err             string
	comments        []string
	calls           string // arguments
}

// read reads a stream as clients do.
func (g got) read(t *testing.T) streamOf {
	t.Helper()
	s := streamOf{ids: map[string]bool{}}
	for event := range strings.SplitSeq(g.body, "\n\n") {
		switch {
		case event == "":
			continue
		case strings.HasPrefix(event, ": "):
			s.comments = append(s.comments, event[2:])
			continue
		case s.done:
			t.Errorf("behind [DONE] there is %q", event)
		}
		data, ok := strings.CutPrefix(event, "data: ")
		if !ok {
			t.Fatalf("an event is %q", event)
		}
		if data == "[DONE]" {
			s.done = true
			continue
		}
		var chunk struct {
			ID, Model, Object string
			Choices           []struct {
				Text  string
				Delta struct {
					Role      *string
					Content   string
					Reasoning string
					ToolCalls []struct{ Function struct{ Arguments string } } `json:"tool_calls"`
				}
				FinishReason string `json:"finish_reason"`
			}
			Usage *struct {
				Prompt     int `json:"prompt_tokens"`
				Completion int `json:"completion_tokens"`
				Total      int `json:"total_tokens"`
			}
			Error *struct{ Message, Code string }
		}
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			t.Fatalf("a chunk is %q: %v", data, err)
		}
		if chunk.Error != nil {
			s.err = chunk.Error.Code + ": " + chunk.Error.Message
			continue
		}
		s.ids[chunk.ID] = true
		s.model = chunk.Model
		if chunk.Usage != nil {
			s.usage = fmt.Sprintf("%d/%d/%d", chunk.Usage.Prompt, chunk.Usage.Completion, chunk.Usage.Total)
		}
		for _, c := range chunk.Choices {
			s.text += c.Delta.Content + c.Text
			s.reasoning += c.Delta.Reasoning
			for _, call := range c.Delta.ToolCalls {
				s.calls += call.Function.Arguments
			}
			if c.Delta.Role != nil {
				s.roles++
			}
			if c.FinishReason != "" {
				s.finish = append(s.finish, c.FinishReason)
			}
		}
	}
	return s
}

// isWhole checks that a stream is one whole answer: of 60 tokens, under one id, with one role,
// one finish reason, and the usage.
func (g got) isWhole(t *testing.T) streamOf {
	t.Helper()
	s := g.read(t)
	switch {
	case g.status != http.StatusOK || g.aborted || s.err != "" || !s.done:
		t.Errorf("status %d, aborted %v, error %q, [DONE] %v; the body ends in %q", g.status, g.aborted, s.err, s.done, g.body[max(0, len(g.body)-300):])
	case s.text != strings.Join(words(60), ""):
		t.Errorf("the text is %q", s.text)
	case len(s.ids) != 1 || s.roles != 1 || len(s.finish) != 1:
		t.Errorf("%d ids, %d roles, finish reasons %v", len(s.ids), s.roles, s.finish)
	case s.usage != "9/60/69":
		t.Errorf("the usage is %s, want 9/60/69", s.usage)
	}
	return s
}

// messageOf returns the text, the finish reason and the usage of an answer that is not streamed.
func (g got) messageOf(t *testing.T) (text, finish, usage string) {
	t.Helper()
	var answer struct {
		Choices []struct {
			Message      struct{ Content string }
			FinishReason string `json:"finish_reason"`
		}
		Usage struct {
			Prompt     int `json:"prompt_tokens"`
			Completion int `json:"completion_tokens"`
			Total      int `json:"total_tokens"`
		}
	}
	if err := json.Unmarshal([]byte(g.body), &answer); err != nil || len(answer.Choices) != 1 {
		t.Fatalf("status %d: %q: %v", g.status, g.body, err)
	}
	u := answer.Usage
	return answer.Choices[0].Message.Content, answer.Choices[0].FinishReason, fmt.Sprintf("%d/%d/%d", u.Prompt, u.Completion, u.Total)
}

// times returns a Misbehave that takes the steps for the first n requests, behind some tokens.
func times(n, after int, steps ...Step) func(Request) (int, []Step) {
	return func(r Request) (int, []Step) {
		if r.Number <= n {
			return after, steps
		}
		return 0, nil
	}
}

// always is times without an end.
func always(after int, steps ...Step) func(Request) (int, []Step) {
	return times(1<<30, after, steps...)
}
