package openai

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/request-migration/migrate/pkg/engine/openai/openaitest" //nolint:revive // a language of steps
	"github.com/request-migration/migrate/pkg/stream"
)

// listing follows who would be listed when.
type listing struct {
	mu    sync.Mutex
	lines []string
}

// follow watches the engine until the test ends.
func follow(t *testing.T, e *Engine) *listing {
	t.Helper()
	began := time.Now()
	l := &listing{}
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	t.Cleanup(watching.Wait)
	t.Cleanup(cancel)
	watching.Go(func() {
		for s := range e.Watch(ctx) {
			names := make([]string, 0, len(s.Models))
			for _, m := range s.Models {
				names = append(names, m.Name)
			}
			l.mu.Lock()
			l.lines = append(l.lines, fmt.Sprintf("%v %t %s", time.Since(began), s.Alive, strings.Join(names, ",")))
			l.mu.Unlock()
		}
	})
	return l
}

func (l *listing) check(t *testing.T, want ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if strings.Join(l.lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("listed:\n%s\nwant:\n%s", strings.Join(l.lines, "\n"), strings.Join(want, "\n"))
	}
}

// inBubble runs a test on a fake clock. Idle connections close at its end.
func inBubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		test(t)
	})
}

// status is what an engine answers, and may be changed.
type status struct{ atomic.Int32 }

func (s *status) health(context.Context) int { return int(s.Load()) }

// An engine that loads for 20 s is listed once it is ready.
func TestHealthLoading(t *testing.T) {
	for _, owner := range []string{"llamacpp", "vllm", "sglang", "library"} {
		inBubble(t, func(t *testing.T) {
			t.Helper()
			var s status
			s.Store(503)
			p := &Provider{OwnedBy: owner, InMemory: true, Health: s.health}
			e := newEngine(t, p, Config{})
			l := follow(t, e)
			time.Sleep(19 * time.Second)
			s.Store(200)
			time.Sleep(time.Minute)
			l.check(t, "0s false ", "20s true test-model")
		})
	}
}

// Not there yet, up, refused once, up again.
func TestHealthRefused(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		t.Helper()
		p := &Provider{OwnedBy: "vllm", InMemory: true}
		e := newEngine(t, p, Config{})
		p.Stop()
		l := follow(t, e)
		time.Sleep(3 * time.Second)
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		p.Stop()
		time.Sleep(6 * time.Second)
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		l.check(t, "0s false ", "4s true test-model", "10s false ", "16s true test-model")
	})
}

// Stopped and started twenty times: each time it is out and in again.
func TestHealthStoppedAndStarted(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		t.Helper()
		p := &Provider{OwnedBy: "vllm", InMemory: true}
		e := newEngine(t, p, Config{})
		l := follow(t, e)
		want := []string{"0s true test-model"}
		for i := range 20 {
			time.Sleep(5 * time.Second)
			p.Stop()
			time.Sleep(5 * time.Second)
			if err := p.Start(); err != nil {
				t.Fatal(err)
			}
			want = append(want, fmt.Sprintf("%v false ", time.Duration(10*i+6)*time.Second), fmt.Sprintf("%v true test-model", time.Duration(10*i+10)*time.Second))
		}
		time.Sleep(time.Minute)
		// The twentieth question comes when the engine starts, and may find it
		// either way: the next one settles it.
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.lines) != len(want) {
			t.Errorf("listed:\n%s\nwant %d changes", strings.Join(l.lines, "\n"), len(want))
		}
		for i, line := range l.lines {
			if alive := i%2 == 0; !strings.Contains(line, fmt.Sprintf(" %t ", alive)) {
				t.Errorf("change %d is %s", i, line)
			}
		}
	})
}

// The list of models is read every 30 s, and after a 404.
func TestHealthModelsChange(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		t.Helper()
		p := &Provider{OwnedBy: "vllm", InMemory: true, Models: []string{"a", "b"}, Misbehave: misbehave(0, Status(404, "no such model"))}
		e := newEngine(t, p, Config{})
		l := follow(t, e)
		time.Sleep(3 * time.Second)
		p.SetModels("b", "c")
		time.Sleep(40 * time.Second)
		p.SetModels("c")
		time.Sleep(time.Second)
		ask(t, e, body(chatPath, `"model":"b","messages":[]`)).check(t, "overloaded", "404")
		time.Sleep(time.Second)
		ask(t, e, body(chatPath, `"model":"b","messages":[]`)).check(t, "application", "404")
		l.check(t, "0s true a,b", "30s true b,c", "44s true c")
	})
}

// A silent engine is out at the third question, but not while a stream of it got
// something in the last 15 s.
func TestHealthSilent(t *testing.T) {
	silent := func(ctx context.Context) int { <-ctx.Done(); return 500 }
	slow := func(ctx context.Context) int {
		select {
		case <-time.After(6 * time.Second):
		case <-ctx.Done():
		}
		return 200
	}
	for name, test := range map[string]struct {
		health func(context.Context) int
		stream time.Duration // for how long one runs
		want   []string
	}{
		"a silent one":                        {silent, 0, []string{"0s true test-model", "17s false "}},
		"one that takes 6 s":                  {slow, 0, []string{"0s true test-model", "17s false "}},
		"one that takes 6 s while it streams": {slow, 2 * time.Minute, []string{"0s true test-model"}},
		"one that streamed until then":        {silent, 10 * time.Second, []string{"0s true test-model", "27s false "}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				t.Helper()
				p := &Provider{OwnedBy: "vllm", InMemory: true, Pace: time.Second, Tokens: strings.Split(strings.Repeat("a ", 500), " ")}
				began := time.Now()
				p.Health = func(ctx context.Context) int {
					if time.Since(began) < time.Second {
						return 200
					}
					return test.health(ctx)
				}
				p.Tokens = nil
				for range int(test.stream.Seconds()) {
					p.Tokens = append(p.Tokens, "a")
				}
				if p.Tokens == nil {
					p.Tokens = []string{"a"}
				}
				e := newEngine(t, p, Config{})
				l := follow(t, e)
				synctest.Wait()
				if test.stream > 0 {
					ask(t, e, chat("")).check(t, "end", "")
				} else {
					time.Sleep(time.Minute)
				}
				if test.stream == 10*time.Second {
					time.Sleep(time.Minute)
				}
				l.check(t, test.want...)
			})
		})
	}
}

// Running streams are not touched when an engine is taken for dead.
func TestHealthDeadWhileItStreams(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		t.Helper()
		var s status
		s.Store(200)
		p := &Provider{OwnedBy: "vllm", InMemory: true, Pace: time.Second, Health: s.health}
		e := newEngine(t, p, Config{})
		l := follow(t, e)
		synctest.Wait()
		s.Store(503)
		ask(t, e, chat("")).check(t, "end", "")
		l.check(t, "0s true test-model", "2s false ")
	})
}

// A request that finds nobody makes the engine be asked at once.
func TestHealthAfterABreak(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		t.Helper()
		p := &Provider{OwnedBy: "vllm", InMemory: true}
		e := newEngine(t, p, Config{})
		l := follow(t, e)
		time.Sleep(500 * time.Millisecond)
		p.Stop()
		ask(t, e, chat("")).check(t, "failed", "refused")
		synctest.Wait()
		l.check(t, "0s true test-model", "500ms false ")
	})
}

func TestHealthPath(t *testing.T) {
	for _, test := range []struct {
		owner, health, missing string // a path that is not there
		want                   string // requests in 3 s
	}{
		{"vllm", "", "", "/v1/models /health /health"},
		{"llamacpp", "", "", "/v1/models /health /health"},
		{"somebody", "", "/health", "/v1/models /health /v1/models /v1/models"},
		{"sglang", "", "", "/v1/models /v1/models /v1/models"},
		{"library", "", "", "/v1/models /v1/models /v1/models"},
		{"vllm", "/ready", "", "/ready /v1/models /ready"},
		{"vllm", HealthOff, "", "/v1/models"},
	} {
		t.Run(test.owner+test.health, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				t.Helper()
				p := &Provider{OwnedBy: test.owner, InMemory: true, Missing: test.missing}
				e := newEngine(t, p, Config{Health: test.health})
				follow(t, e)
				time.Sleep(3 * time.Second)
				if got := strings.Join(p.Paths(), " "); got != test.want {
					t.Errorf("asked at %s, want %s", got, test.want)
				}
			})
		})
	}
}

// Which models are listed, under which names, and how they resume.
func TestModels(t *testing.T) {
	for _, test := range []struct {
		name    string
		owner   string
		aliases []string
		picks   []Pick
		vouch   bool
		want    string
		missing string
	}{
		{"all", "vllm", nil, nil, false, "[{a a true} {b/c b/c true}]", ""},
		{"all of an engine that can't continue", "library", nil, nil, false, "[{a a false} {b/c b/c false}]", ""},
		{"vouched for", "somebody", nil, nil, true, "[{a a true} {b/c b/c true}]", ""},
		{"an alias", "llamacpp", []string{"a", "nice"}, nil, false, "[{nice a true} {b/c b/c true}]", ""},
		{"one", "vllm", nil, []Pick{{ID: "b/c"}}, false, "[{b/c b/c true}]", ""},
		{"under another name", "vllm", nil, []Pick{{Name: "mine", ID: "a"}, {Name: "too", ID: "a"}}, false, "[{mine a true} {too a true}]", ""},
		{"by alias", "llamacpp", []string{"nice"}, []Pick{{ID: "nice"}}, false, "[{nice a true}]", ""},
		{"one that is not there", "vllm", nil, []Pick{{ID: "x"}, {ID: "a"}}, false, "[{a a true}]", "x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &Provider{OwnedBy: test.owner, Models: []string{"a", "b/c"}, Aliases: test.aliases}
			e := newEngine(t, p, Config{Models: test.picks, ResumeByPrefix: test.vouch})
			for s := range e.Watch(t.Context()) {
				if got := fmt.Sprint(s.Models); got != test.want || strings.Join(s.Missing, ",") != test.missing {
					t.Errorf("models %s, missing %q; want %s, %q", got, s.Missing, test.want, test.missing)
				}
				break
			}
		})
	}
}

// The body's model becomes the engine's own id; without one it is the endpoint's.
func TestModelOfARequest(t *testing.T) {
	p := &Provider{OwnedBy: "llamacpp", Models: []string{"/models/a.gguf", "b"}, Aliases: []string{"nice"}}
	e := newEngine(t, p, Config{Models: []Pick{{Name: "mine", ID: "nice"}, {ID: "b"}}})
	for _, test := range []struct{ to, model, want string }{
		{"", "", "/models/a.gguf"},
		{"", "mine", "/models/a.gguf"},
		{"", "nice", "/models/a.gguf"},
		{"", "/models/a.gguf", "/models/a.gguf"},
		{"", "b", "b"},
		{"", "unheard-of", "unheard-of"},
		{"prod/b/openai/4d2", "", "b"},
		{"prod/mine/openai/4d2", "", "/models/a.gguf"},
		{"prod/b/openai/4d2", "mine", "/models/a.gguf"},
		{"dynamo/backend/generate/4d2", "", "/models/a.gguf"},
	} {
		req := chat("")
		if test.model != "" {
			req = chat(`,"model":"` + test.model + `"`)
		}
		req.To = test.to
		ask(t, e, req).check(t, "end", "")
		sent := p.Requests()
		if got := object(sent[len(sent)-1].Body).Str("model"); got != test.want {
			t.Errorf("to %q, model %q: the engine got %q, want %q", test.to, test.model, got, test.want)
		}
	}
	text := stream.Request{Data: stream.String("Hi"), To: "prod/b/openai/4d2"}
	ask(t, e, text).check(t, "end", "")
	sent := p.Requests()
	if got := object(sent[len(sent)-1].Body).Str("model"); got != "b" {
		t.Errorf("a text for b came with model %q", got)
	}
}

func TestComponent(t *testing.T) {
	for model, want := range map[string]string{
		"llama-3:8b": "llama-3:8b", "meta/Llama 3": "meta%2FLlama%203", "100%": "100%25", "é": "é", "..": "%2E%2E", "a\u00a0b": "a%C2%A0b",
	} {
		got := Component(model)
		if got != want {
			t.Errorf("Component(%q) is %q, want %q", model, got, want)
		}
		if back, err := ModelName(got); err != nil || back != model {
			t.Errorf("ModelName(%q) is %q, %v, want %q", got, back, err, model)
		}
	}
}

func TestConfigMistakes(t *testing.T) {
	for _, url := range []string{"", "127.0.0.1:8000", "ftp://a", "http://", "http://a/?x=1", "http://u:p@a", "http://a#b"} {
		if _, err := New(Config{URL: url}); err == nil {
			t.Errorf("URL %q is taken", url)
		}
	}
	for url, want := range map[string]string{
		"http://a:1": "http://a:1/v1/models", "http://a:1/v1/": "http://a:1/v1/models", "https://a/api/v1": "https://a/api/v1/models", "http://a/x": "http://a/x/v1/models",
	} {
		e, err := New(Config{URL: url})
		if err != nil {
			t.Error(err)
			continue
		}
		if got := e.at(modelsPath); got != want {
			t.Errorf("%s: models at %s, want %s", url, got, want)
		}
	}
	if _, err := ParseKind("tgi"); err == nil || !strings.Contains(err.Error(), "vllm, sglang, llamacpp, ollama, other") {
		t.Errorf("ParseKind(tgi): %v, want an error with the valid ones", err)
	}
}
