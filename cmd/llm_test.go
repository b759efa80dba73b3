//go:build unix

package cmd_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/file"
	"github.com/request-migration/migrate/pkg/engine/openai"
	"github.com/request-migration/migrate/pkg/engine/openai/llmtest"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
)

const (
	llmTokens  = 60 // of an answer
	llmBreaks  = 40 // after how many tokens the engine is killed, each in turn
	llmMessage = "Tell me a story about a lighthouse."
)

// llmBed is two real engines, each with `migrate serve --openai` in front of it, and a
// router that finds them through the file store.
type llmBed struct {
	w       *world
	engines [2]*llmtest.Engine
	servers [2]*process
	flags   []string
	router  *router.Router
	store   discovery.Store
}

func newLLMBed(t *testing.T, flags ...string) *llmBed {
	t.Helper()
	b := &llmBed{w: newWorld(t), flags: flags}
	for n := range b.engines {
		b.engines[n] = llmtest.Start(t)
		b.serve(t, n)
	}
	store, err := file.Open(file.Config{Dir: b.w.kv})
	if err != nil {
		t.Fatal(err)
	}
	b.store = store
	registry := discovery.NewRegistry(store, nil)
	client := &stream.Client{}
	b.router = router.New(router.Config{
		Endpoint: llmEndpoint(), Client: router.StreamClient(client), Source: registry, Reports: registry,
		Wait: patience, WaitRestore: patience,
	})
	t.Cleanup(func() {
		b.router.Close()
		client.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func llmEndpoint() discovery.Endpoint {
	return discovery.Endpoint{Namespace: "dynamo", Component: llmtest.Model, Name: openai.EndpointName}
}

// serve starts the server in front of an engine.
func (b *llmBed) serve(t *testing.T, n int) {
	t.Helper()
	b.servers[n] = b.w.start(t, nil, append([]string{
		"migrate", "serve", "--openai", b.engines[n].URL(), "--name", b.name(n), "--model", llmtest.Model + "=" + b.modelID(t),
	}, b.flags...)...)
	if err := b.servers[n].await(b.servers[n].stderr, `INFO serve: registered`, 1); err != nil {
		t.Fatal(err)
	}
}

// modelID returns the engines' own id of the model, a file's path.
func (b *llmBed) modelID(t *testing.T) string {
	t.Helper()
	for _, m := range b.engines[0].Models() {
		return m
	}
	t.Fatal("the engine lists no model")
	return ""
}

func (b *llmBed) name(n int) string { return fmt.Sprintf("engine%d", n) }

// both waits until both engines are listed.
func (b *llmBed) both(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	for set, err := range discovery.NewRegistry(b.store, nil).Watch(ctx, llmEndpoint()) {
		if err != nil {
			t.Fatalf("waiting for both engines to be listed: %v", err)
		}
		if len(set.List) == len(b.engines) {
			break
		}
	}
}

// llmAnswer is what a caller got.
type llmAnswer struct {
	text   string
	finish string
	tokens int
	gap    time.Duration // the longest between two pieces
	from   []string      // the instances, by name, that gave something
}

func (a llmAnswer) String() string {
	return fmt.Sprintf("%q, %s, %d tokens", a.text, a.finish, a.tokens)
}

// ask asks for an answer, and calls at after each piece with the number of tokens so far
// and the engine that gave it.
func (b *llmBed) ask(t *testing.T, message string, at func(tokens, engine int)) llmAnswer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	body, err := json.Marshal(map[string]any{
		"path": "/v1/chat/completions",
		"body": map[string]any{
			"messages":   []map[string]string{{"role": "user", "content": message}},
			"max_tokens": llmTokens, "temperature": 0, "cache_prompt": false,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	var a llmAnswer
	last := time.Time{}
	for item, err := range b.router.Do(ctx, router.Request{Data: body}) {
		if err != nil {
			t.Fatalf("the answer so far is %v: %v", a, err)
		}
		if item.Event == openai.EventChunk {
			a.finish = finishReason(item.Data, a.finish)
		}
		text, ok := item.Content()
		if !ok {
			continue
		}
		if now := time.Now(); !last.IsZero() {
			a.gap = max(a.gap, now.Sub(last))
		}
		last = time.Now()
		a.text += text
		a.tokens += tokensOf(item.Data)
		if name := item.Peer.Name; len(a.from) == 0 || a.from[len(a.from)-1] != name {
			a.from = append(a.from, name)
		}
		for n := range b.engines {
			if item.Peer.Name == b.name(n) {
				at(a.tokens, n)
			}
		}
	}
	return a
}

// tokensOf returns how many tokens an item of text is.
func tokensOf(data json.RawMessage) int {
	var counted struct{ Tokens int }
	if json.Unmarshal(data, &counted) == nil && counted.Tokens > 0 {
		return counted.Tokens
	}
	return 1
}

// finishReason returns the finish reason that a chunk has, else the one so far.
func finishReason(data json.RawMessage, so string) string {
	var chunk struct {
		Choices []struct {
			Reason string `json:"finish_reason"`
		}
	}
	if json.Unmarshal(data, &chunk) == nil {
		for _, c := range chunk.Choices {
			if c.Reason != "" {
				return c.Reason
			}
		}
	}
	return so
}

// breakEach breaks what serves an answer after each of the first tokens in turn, and checks
// that the answer is as without a break.
func (b *llmBed) breakEach(t *testing.T, step int, fail, mend func(engine int)) {
	t.Helper()
	want := b.ask(t, llmMessage, func(int, int) {})
	t.Logf("without a break: %v, longest gap %v", want, want.gap.Round(time.Millisecond))
	if want.tokens < llmBreaks || want.finish == "" {
		t.Fatalf("the answer is too short: %v", want)
	}
	var longest time.Duration
	for after := 1; after <= llmBreaks; after += step {
		broken := -1
		got := b.ask(t, llmMessage, func(tokens, engine int) {
			if tokens >= after && broken < 0 {
				broken = engine
				fail(engine)
			}
		})
		if got.text != want.text || got.finish != want.finish || got.tokens != want.tokens {
			t.Errorf("broken after %d tokens: got %v, want %v", after, got, want)
		}
		if len(got.from) != 2 {
			t.Errorf("broken after %d tokens: it came from %v, want two engines", after, got.from)
		}
		longest = max(longest, got.gap)
		mend(broken)
		b.both(t)
	}
	t.Logf("the longest gap is %v", longest.Round(time.Millisecond))
}

// llmStep returns how many tokens lie between two breaks: 1 if the variable LLM_EACH is set.
func llmStep(few int) int {
	if os.Getenv("LLM_EACH") != "" {
		return 1
	}
	return few
}

// TestLLMKilled kills the engine that serves, after each of the first 40 tokens in turn. The
// text, the finish and the number of tokens are as without a kill.
func TestLLMKilled(t *testing.T) { //nolint:paralleltest // the engines need the processors
	b := newLLMBed(t)
	b.breakEach(t, 1, func(n int) { b.engines[n].Kill() }, func(n int) { b.engines[n].Restart() })
}

// TestLLMFrozen suspends the engine that serves. Every eighth token is enough, unless
// LLM_EACH is set: each takes the item timeout.
func TestLLMFrozen(t *testing.T) { //nolint:paralleltest // the engines need the processors
	b := newLLMBed(t, "--item-timeout", "3s")
	b.breakEach(t, llmStep(8), func(n int) { b.engines[n].Freeze() }, func(n int) { b.engines[n].Thaw() })
}

// TestLLMServerKilled kills the `migrate serve` in front of the engine that serves.
func TestLLMServerKilled(t *testing.T) { //nolint:paralleltest // the engines need the processors
	b := newLLMBed(t)
	b.breakEach(t, llmStep(4), func(n int) { b.servers[n].kill() }, func(n int) { b.serve(t, n) })
}

// TestLLMRequest is what the README shows: `migrate request --model --output raw` goes on
// printing while the engine behind it is killed. A fault of the server does the same.
func TestLLMRequest(t *testing.T) { //nolint:paralleltest // the engines need the processors
	b := newLLMBed(t)
	// The answer ends by itself.
	args := []string{"migrate", "request", "Describe a lighthouse in two sentences.", "--model", llmtest.Model, "--output", "raw"}
	want, _ := b.w.run(t, 0, nil, args...)
	if len(want) < 100 {
		t.Fatalf("the answer is %q", want)
	}
	p := b.w.start(t, nil, args...)
	if err := p.await(p.stdout, `^.{40}`, 1); err != nil {
		t.Fatal(err)
	}
	killed := 0
	if !b.engines[0].Busy() {
		killed = 1
	}
	b.engines[killed].Kill()
	b.w.ended(t, p, 0)
	if got := p.stdout.String(); got != want {
		t.Errorf("with the engine killed the answer is\n%q, want\n%q", got, want)
	}
	b.engines[killed].Restart()
	b.both(t)

	// A server that breaks every stream after two items gives the same, with another.
	third := b.w.start(t, nil, "migrate", "serve", "--openai", b.engines[0].URL(), "--name", "breaks", "--failure-mode", "always",
		"--failure-after", "10", "--model", llmtest.Model+"="+b.modelID(t))
	if err := third.await(third.stderr, `INFO serve: registered`, 1); err != nil {
		t.Fatal(err)
	}
	got, _ := b.w.run(t, 0, nil, append(args, "--instance", "breaks")...)
	if got != want {
		t.Errorf("with a fault the answer is\n%q, want\n%q", got, want)
	}
	if err := third.await(third.stderr, "Simulating stream error", 1); err != nil {
		t.Error(err)
	}

	table, _ := b.w.run(t, 0, nil, "migrate", "instances", "--all")
	if !strings.HasPrefix(table, "dynamo/"+llmtest.Model+"/openai\n") || strings.Count(table, " yes") < 3 {
		t.Errorf("instances --all prints\n%s", table)
	}
	_, stderr := b.w.run(t, 3, nil, "migrate", "request", "x", "--model", "another", "--wait", "10ms")
	if !strings.Contains(stderr, "dynamo/another/openai") {
		t.Errorf("a model that nobody has: %s", stderr)
	}
}
