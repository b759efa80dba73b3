//go:build unix

package cmd_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/engine/openai/openaitest"
)

// startProvider starts a provider in this process.
func startProvider(t *testing.T, p *openaitest.Provider) *openaitest.Provider {
	t.Helper()
	if p.Tokens == nil {
		p.Tokens = strings.SplitAfter("Once upon a time there was a fox who lived in a wood and was red. The end.", " ")
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

// serveOpenAI starts `migrate serve --openai` in front of a provider, and returns when it
// has registered n models.
func serveOpenAI(t *testing.T, w *world, p *openaitest.Provider, n int, flags ...string) *process {
	t.Helper()
	server := w.start(t, nil, append([]string{"migrate", "serve", "--openai", p.URL()}, flags...)...)
	if err := server.await(server.stderr, `INFO serve: registered `, n); err != nil {
		t.Fatal(err)
	}
	return server
}

// TestServeOpenAI asks for models of two engines, of which one breaks in the middle.
func TestServeOpenAI(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	broken := startProvider(t, &openaitest.Provider{OwnedBy: "vllm", Models: []string{"meta/llama 3", "other"},
		Misbehave: func(openaitest.Request) (int, []openaitest.Step) { return 5, []openaitest.Step{openaitest.Cut()} }})
	sound := startProvider(t, &openaitest.Provider{OwnedBy: "vllm", Models: []string{"meta/llama 3"}})
	serveOpenAI(t, w, broken, 2)
	serveOpenAI(t, w, sound, 1, "--name", "sound")

	// Without --name an engine is called as its address.
	got, _ := w.run(t, 0, nil, "migrate", "request", "hello", "--model", "meta/llama 3", "--output", "raw",
		"--instance", strings.TrimPrefix(broken.URL(), "http://"))
	if want := strings.Join(sound.Tokens, "") + "\n"; got != want {
		t.Errorf("the answer is %q, want %q", got, want)
	}
	requests := sound.Requests()
	if len(requests) != 1 {
		t.Fatalf("the sound engine got %d requests, want 1", len(requests))
	}
	role, text := requests[0].LastMessage()
	if want := strings.TrimSpace(strings.Join(sound.Tokens[:5], "")); role != "assistant" || text != want || requests[0].Field("model") != `"meta/llama 3"` {
		t.Errorf("the sound engine was asked for %s to go on behind %s %q, want behind assistant %q", requests[0].Field("model"), role, text, want)
	}

	out, _ := w.run(t, 0, nil, "migrate", "instances", "--all", "--output", "json")
	var all struct {
		Endpoints []struct {
			Endpoint  string
			Instances []struct{ Name, Engine, Resume string }
		}
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatal(err)
	}
	listed := map[string]int{}
	for _, e := range all.Endpoints {
		listed[e.Endpoint] = len(e.Instances)
		for _, i := range e.Instances {
			if i.Engine != "openai" || i.Resume != "prefix" {
				t.Errorf("%s lists %+v", e.Endpoint, i)
			}
		}
	}
	if len(listed) != 2 || listed["dynamo/meta%2Fllama%203/openai"] != 2 || listed["dynamo/other/openai"] != 1 {
		t.Errorf("instances --all lists %v", listed)
	}
	if table, _ := w.run(t, 0, nil, "migrate", "instances", "--all"); !strings.Contains(table, "\n\ndynamo/other/openai\nID ") {
		t.Errorf("the tables are\n%s", table)
	}
}

// TestServeOpenAIFollowsEngine stops and starts an engine, and changes its models.
func TestServeOpenAIFollowsEngine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := startProvider(t, &openaitest.Provider{OwnedBy: "vllm", Models: []string{"first"}})
	server := serveOpenAI(t, w, p, 1)
	p.Stop()
	if err := server.await(server.stderr, `WARN serve: The engine takes no requests.*refused`, 1); err != nil {
		t.Fatal(err)
	}
	if err := server.await(server.stderr, `INFO serve: deregistered `, 1); err != nil {
		t.Fatal(err)
	}
	_, stderr := w.run(t, 3, nil, "migrate", "request", "x", "--model", "first", "--wait", "10ms")
	if !strings.Contains(stderr, "dynamo/first/openai") {
		t.Errorf("without an engine a request says %s", stderr)
	}
	p.SetModels("first", "second")
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	if err := server.await(server.stderr, `INFO serve: registered `, 3); err != nil {
		t.Fatal(err)
	}
	for _, model := range []string{"first", "second"} {
		w.run(t, 0, nil, "migrate", "request", "x", "--model", model, "--output", "raw")
	}
	if err := server.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.ended(t, server, 0)
	_, stderr = w.run(t, 0, nil, "migrate", "instances", "--all")
	if !strings.Contains(stderr, "no instances of namespace dynamo in the file store") {
		t.Errorf("when the server has left, instances says %s", stderr)
	}
}

// TestServeOpenAIBusy has 20 requests for two engines with two slots each. Those that wait
// for too long are refused as overloaded and go to the other engine: nobody healthy is
// reported down, and all are answered.
func TestServeOpenAIBusy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 2 {
		// An answer takes 1.5 s, and so all of them 7.5 s: longer than one engine may take to
		// begin, and shorter than two.
		p := startProvider(t, &openaitest.Provider{OwnedBy: "vllm", Models: []string{"m"}, Slots: 2, Pace: 90 * time.Millisecond})
		serveOpenAI(t, w, p, 1, "--first-item-timeout", "6s")
	}
	out, _ := w.run(t, 0, nil, "migrate", "request", "x", "--model", "m", "--count", "20", "--concurrency", "20", "--output", "json")
	if n := strings.Count(out, `"outcome":"success"`); n != 20 {
		t.Errorf("%d of 20 requests succeeded", n)
	}
	t.Logf("%d requests were refused as overloaded by one engine", strings.Count(out, `{"type":"refused"`))
	if strings.Contains(out, `"reported":true`) {
		t.Error("a healthy engine was blamed")
	}
	table, _ := w.run(t, 0, nil, "migrate", "instances", "--all")
	if strings.Contains(table, " no ") {
		t.Errorf("afterwards an engine is out:\n%s", table)
	}
}

// TestServeOpenAIKey sends the key of a file, and a new one once the file has it.
func TestServeOpenAIKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var want atomic.Value
	want.Store("Bearer first")
	p := startProvider(t, &openaitest.Provider{OwnedBy: "vllm", Models: []string{"m"},
		Misbehave: func(r openaitest.Request) (int, []openaitest.Step) {
			if r.Header.Get("Authorization") != want.Load() {
				return 0, []openaitest.Step{openaitest.Status(http.StatusUnauthorized, "")}
			}
			return 0, nil
		}})
	file := filepath.Join(w.dir, "key")
	write := func(key string) {
		if err := os.WriteFile(file, []byte(key+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first")
	server := serveOpenAI(t, w, p, 1, "--engine-key-file", file)
	w.run(t, 0, nil, "migrate", "request", "x", "--model", "m")
	want.Store("Bearer second")
	_, stderr := w.run(t, 3, nil, "migrate", "request", "x", "--model", "m")
	if !strings.Contains(stderr, "401") {
		t.Errorf("with an old key a request says %s", stderr)
	}
	write("the-second-key")
	want.Store("Bearer the-second-key")
	w.run(t, 0, nil, "migrate", "request", "x", "--model", "m")
	for _, text := range []string{server.stderr.String(), stderr} {
		if strings.Contains(text, "second-key") || strings.Contains(text, "Bearer") {
			t.Errorf("a key is shown: %s", text)
		}
	}
}

// TestServeOpenAIMistakes lists mistakes on the command line.
func TestServeOpenAIMistakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const url = "http://127.0.0.1:1"
	for _, test := range []struct{ flags, says string }{
		{"--openai 127.0.0.1:8000", "want a URL such as http://127.0.0.1:8000"},
		{"--openai " + url + " -- cat", "choose one of the two engines"},
		{"--openai " + url + " --delay 1s", "for servers that echo"},
		{"--openai " + url + " --items json", "for a command"},
		{"--openai " + url + " --resume-by index", "can promise prefix"},
		{"--openai " + url + " --engine-type gpt", "vllm, sglang, llamacpp, ollama, other"},
		{"--openai " + url + " --model =x", "NAME=ID"},
		{"--openai " + url + " --first-item-timeout fast", "MODEL=DURATION"},
		{"--openai " + url + " --item-timeout 0s", "above 0"},
		{"--openai " + url + " --health health", "/health"},
		{"--openai " + url + " --reasoning x", "restart, fail"},
		{"--openai " + url + " --tool-calls x", "hold, stream"},
		{"--openai " + url + " --engine-key-file /nowhere/key", "no such file"},
		{"--model m", "it is for --openai URL"},
		{"--health off -- cat", "it is for --openai URL"},
	} {
		_, stderr := w.run(t, 2, nil, append([]string{"migrate", "serve"}, strings.Fields(test.flags)...)...)
		if !strings.Contains(stderr, test.says) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("serve %s says %q, want one line with %q", test.flags, stderr, test.says)
		}
	}
	for _, args := range [][]string{
		{"request", "x", "--model", "m", "--spawn", "a=never"}, {"instances", "--all", "--watch"},
	} {
		w.run(t, 2, nil, append([]string{"migrate"}, args...)...)
	}
}
