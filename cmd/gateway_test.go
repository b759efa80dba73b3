//go:build unix

package cmd_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/engine/openai/openaitest"
)

// post makes a request, and returns what came, up to the end or to what broke it. The answer is
// nil if none has begun.
func post(t *testing.T, url, body string, headers ...string) (resp *http.Response, answer string, err error) {
	t.Helper()
	return postAnd(t, url, body, func(*http.Response) {}, headers...)
}

// postAnd is post, and calls begun when the answer has begun.
func postAnd(t *testing.T, url, body string, begun func(*http.Response), headers ...string) (resp *http.Response, answer string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err = http.DefaultClient.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	begun(resp)
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

// askGateway asks a gateway the question.
func askGateway(t *testing.T, url string, headers ...string) (status int, answer string, err error) {
	t.Helper()
	resp, answer, err := post(t, url+"/v1/chat/completions", gatewayQuestion, headers...)
	if resp == nil {
		t.Errorf("the gateway does not answer: %v", err)
		return 0, "", err
	}
	return resp.StatusCode, answer, err
}

const gatewayQuestion = `{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`

// TestGatewayOverStore serves what `migrate serve --openai` has registered: an answer whose
// engine breaks, and one whose server is killed, go on at the other.
func TestGatewayOverStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cut := startProvider(t, &openaitest.Provider{OwnedBy: "vllm", Models: []string{"m"},
		Misbehave: func(r openaitest.Request) (int, []openaitest.Step) {
			if r.Number == 1 {
				return 5, []openaitest.Step{openaitest.Cut()}
			}
			return 0, nil
		}})
	sound := startProvider(t, &openaitest.Provider{OwnedBy: "vllm", Models: []string{"m"}, Pace: 50 * time.Millisecond})
	first := serveOpenAI(t, w, cut, 1, "--name", "first")
	second := serveOpenAI(t, w, sound, 1, "--name", "second")
	access := filepath.Join(w.dir, "access.log")
	gateway := w.start(t, nil, "migrate", "gateway", "--listen", "127.0.0.1:0", "--access-log", access, "--router", "round-robin", "--cooldown", "500ms")
	url := gatewayURL(t, gateway)
	if err := gateway.await(gateway.stderr, `model is served`, 1); err != nil {
		t.Fatal(err)
	}
	want := strings.Join(sound.Tokens, "")
	migrated := 0
	for n := range 4 {
		_, body, err := askGateway(t, url)
		if text := textOfStream(t, body); text != want || err != nil || !strings.HasSuffix(body, "data: [DONE]\n\n") {
			t.Errorf("answer %d is %q, %v", n, text, err)
		}
		migrated += strings.Count(body, ": migrated ")
	}
	if migrated != 1 {
		t.Errorf("%d answers migrated, want the one whose engine broke", migrated)
	}
	by, done := make(chan string, 4), make(chan string, 2)
	for range 2 { // one at each
		go func() {
			_, body, _ := postAnd(t, url+"/v1/chat/completions", gatewayQuestion, func(resp *http.Response) {
				by <- resp.Header.Get("X-Migrate-Instance")
			})
			by <- "" // one that has not begun never will
			done <- body
		}()
	}
	for ended := 0; <-by != "second"; { // the other one may have ended by then
		if ended++; ended == cap(by) {
			t.Fatal("the second server has begun no answer")
		}
	}
	second.kill() // in the middle of an answer of one second
	for range 2 {
		if body := <-done; textOfStream(t, body) != want {
			t.Errorf("with its server killed an answer is %q", body)
		}
	}
	if err := first.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.ended(t, first, 0)
	if status, body, _ := askGateway(t, url); status != http.StatusServiceUnavailable && status != http.StatusBadGateway { // the killed one may still be listed
		t.Errorf("without an instance the status is %d: %s", status, body)
	}
	if err := gateway.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.ended(t, gateway, 0)
	log, err := os.ReadFile(access)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(log), "\n"); n != 7 || strings.Contains(string(log), "fox") {
		t.Errorf("the access log has %d lines, want 7, without what was said:\n%s", n, log)
	}
	if info, err := os.Stat(access); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the access log's mode is %v, %v", info.Mode(), err)
	}
}

// textOfStream returns the text of a stream of chunks.
func textOfStream(t *testing.T, body string) string {
	t.Helper()
	var text strings.Builder
	for line := range strings.Lines(body) {
		data, ok := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		if !ok || data == "[DONE]" {
			continue
		}
		var chunk struct {
			Choices []struct{ Delta struct{ Content string } }
		}
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			t.Fatalf("a chunk is %q: %v", data, err)
		}
		for _, c := range chunk.Choices {
			text.WriteString(c.Delta.Content)
		}
	}
	return text.String()
}

// TestGatewayKeys checks that no key of a client or of an engine reaches a log, an engine or the
// list of processes.
func TestGatewayKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := startProvider(t, &openaitest.Provider{OwnedBy: "vllm", Models: []string{"m"}})
	files := map[string]string{"keys": "# name key\nann client-secret\n", "engine": "engine-secret\n", "bad": "onlyname\n"}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	gateway := w.start(t, nil, "migrate", "gateway", "--listen", "127.0.0.1:0", "--engine", "a="+p.URL(), "--access-log", "-",
		"--api-key-file", "keys", "--engine-key-file", "a=engine", "--log", "debug")
	url := gatewayURL(t, gateway)
	if err := gateway.await(gateway.stderr, `model is served`, 1); err != nil {
		t.Fatal(err)
	}
	if status, _, _ := askGateway(t, url); status != http.StatusUnauthorized {
		t.Errorf("without a key the status is %d", status)
	}
	if status, body, _ := askGateway(t, url, "Authorization", "Bearer client-secret"); status != http.StatusOK {
		t.Errorf("with a key the status is %d: %s", status, body)
	}
	if err := gateway.await(gateway.stdout, `"key":"ann"`, 1); err != nil {
		t.Error(err)
	}
	for _, r := range p.Requests() {
		if got := r.Header.Get("Authorization"); got != "Bearer engine-secret" {
			t.Errorf("the engine got %q", got)
		}
	}
	args, err := os.ReadFile("/proc/" + strconv.Itoa(gateway.cmd.Process.Pid) + "/cmdline")
	if err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
	for where, text := range map[string]string{"the log": gateway.stderr.String(), "the access log": gateway.stdout.String(), "the list of processes": string(args)} {
		if strings.Contains(text, "secret") {
			t.Errorf("a key is in %s: %s", where, text)
		}
	}
	_, stderr := w.run(t, 2, nil, "migrate", "gateway", "--engine", "a="+p.URL(), "--api-key-file", "bad")
	if !strings.Contains(stderr, "line 1: want NAME KEY") || strings.Contains(stderr, "onlyname") {
		t.Errorf("a bad file of keys: %s", stderr)
	}
}

// TestGatewayDrains lets an answer finish, and ends one that takes longer with an error.
func TestGatewayDrains(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := startProvider(t, &openaitest.Provider{OwnedBy: "vllm", Models: []string{"m"}, Pace: time.Second})
	gateway := w.start(t, nil, "migrate", "gateway", "--listen", "127.0.0.1:0", "--engine", "a="+p.URL(), "--drain-timeout", "1s")
	url := gatewayURL(t, gateway)
	if err := gateway.await(gateway.stderr, `model is served`, 1); err != nil {
		t.Fatal(err)
	}
	type result struct {
		body string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		_, body, err := askGateway(t, url)
		done <- result{body, err}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.Wait(ctx, func() bool { return len(p.Requests()) == 1 }); err != nil {
		t.Fatal("the engine was not asked")
	}
	if err := gateway.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r := <-done
	if r.err == nil || strings.Contains(r.body, "[DONE]") || !strings.Contains(r.body, `"code":"shutting_down"`) {
		t.Errorf("the answer ends with %v: %s", r.err, r.body)
	}
	w.ended(t, gateway, 0)
}

// TestGatewayMistakes lists mistakes on the command line.
func TestGatewayMistakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, test := range []struct{ flags, says string }{
		{"--engine http://127.0.0.1:8000", "want NAME=VALUE"},
		{"--engine a=127.0.0.1:8000", "want a URL"},
		{"--engine a=http://x --engine a=http://y", "twice"},
		{"--any-model", "it is for --engine"},
		{"--item-timeout 3s", "it is for --engine"},
		{"--engine a=http://x --item-timeout 0s", "above 0"},
		{"--engine a=http://x --first-item-timeout m=x", "MODEL=DURATION"},
		{"--engine a=http://x --engine-key-file b=key", "there is no engine"},
		{"--engine a=http://x --fallback m", "NAME=VALUE"},
		{"--engine a=http://x --router best", "affinity"},
		{"--engine a=http://x --api-key-file nowhere", "no such file"},
		{"--engine a=http://x --attempts 0", "above 0"},
		{"--store-kv mem", "--engine NAME=URL"},
		{"extra", "unknown command"},
	} {
		_, stderr := w.run(t, 2, nil, append([]string{"migrate", "gateway", "--listen", "127.0.0.1:0"}, strings.Fields(test.flags)...)...)
		if !strings.Contains(stderr, test.says) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("gateway %s says %q, want one line with %q", test.flags, stderr, test.says)
		}
	}
}
