//go:build unix

package cmd_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/engine/openai/llmtest"
)

// llmGateway is two real engines behind `migrate gateway`.
type llmGateway struct {
	engines [2]*llmtest.Engine
	process *process
	url     string
}

func newLLMGateway(t *testing.T, flags ...string) *llmGateway {
	t.Helper()
	g := &llmGateway{}
	args := []string{"migrate", "gateway", "--listen", "127.0.0.1:0", "--cooldown", "500ms"}
	for n := range g.engines {
		g.engines[n] = llmtest.Start(t)
		args = append(args, "--engine", fmt.Sprintf("engine%d=%s", n, g.engines[n].URL()))
	}
	args = append(args, "--alias", llmtest.Model+"="+g.engines[0].Models()[0])
	g.process = newWorld(t).start(t, nil, append(args, flags...)...)
	g.url = gatewayURL(t, g.process)
	g.both(t)
	return g
}

// gatewayURL waits until a gateway serves, and returns its address.
func gatewayURL(t *testing.T, p *process) string {
	t.Helper()
	if err := p.await(p.stderr, `Serving OpenAI clients`, 1); err != nil {
		t.Fatal(err)
	}
	url := regexp.MustCompile(`page=(http://[^/]+)/`).FindStringSubmatch(p.stderr.String())
	if url == nil {
		t.Fatalf("the gateway says %s", p.stderr)
	}
	return url[1]
}

// both waits until the gateway lists both engines.
func (g *llmGateway) both(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(2 * patience); ; time.Sleep(50 * time.Millisecond) { // there is nothing to wait for
		var status struct {
			Models []struct{ Instances []struct{ Name string } }
		}
		getJSON(t, g.url+"/status", &status)
		if len(status.Models) == 1 && len(status.Models[0].Instances) == len(g.engines) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not both engines are listed: %+v", status)
		}
	}
}

// serving returns the engine at which a stream runs. (An engine is at work for a moment after
// its request was cancelled, so that its own word does not tell.)
func (g *llmGateway) serving(t *testing.T) int {
	t.Helper()
	var status struct {
		Models []struct {
			Instances []struct {
				Name    string
				Streams int
			}
		}
	}
	getJSON(t, g.url+"/status", &status)
	for _, m := range status.Models {
		for _, i := range m.Instances {
			if n, err := strconv.Atoi(strings.TrimPrefix(i.Name, "engine")); err == nil && i.Streams > 0 {
				return n
			}
		}
	}
	t.Fatal("no engine serves")
	return 0
}

func getJSON(t *testing.T, url string, into any) {
	t.Helper()
	if answer := get(t, url); json.Unmarshal([]byte(answer), into) != nil {
		t.Fatalf("%s: %s", url, answer)
	}
}

// sdkMessage has an answer that ends by itself: the clients' helpers take one that is cut by a
// limit for an error.
const sdkMessage = "What is a lighthouse? Answer briefly."

// sdk is one of OpenAI's own clients, in a process.
type sdk struct {
	name  string
	stdin io.Writer
	lines *bufio.Reader
}

// sdkAnswer is what a client made of an answer.
type sdkAnswer struct {
	Text   string
	Finish []string
	IDs    int
	Roles  int
	Usage  struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
		Total      int `json:"total_tokens"`
	}
}

// sdks starts the clients.
func sdks(t *testing.T) []*sdk {
	t.Helper()
	dir := llmtest.Installed(t)
	program := filepath.Join(t.TempDir(), "client")
	if out, err := exec.CommandContext(t.Context(), "go", "-C", "../testdata/llm/clients/go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("building the Go client: %v\n%s", err, out)
	}
	var all []*sdk
	for name, args := range map[string][]string{
		"python": {filepath.Join(dir, "bin", "python"), "../testdata/llm/clients/client.py"},
		"node":   {"node", "../testdata/llm/clients/client.mjs"},
		"go":     {program},
	} {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Env = append(cmd.Environ(), "MIGRATE_LLM="+dir)
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		stderr := newRecording()
		cmd.Stderr = stderr
		if err := cmd.Start(); err != nil {
			t.Fatalf("starting the %s client: %v", name, err)
		}
		t.Cleanup(func() {
			_ = stdin.Close()
			_ = cmd.Wait() // its end is no news
			if t.Failed() {
				t.Logf("the %s client: %s", name, stderr)
			}
		})
		all = append(all, &sdk{name, stdin, bufio.NewReader(stdout)})
	}
	return all
}

// ask asks a question, and calls at after each piece with the number of pieces so far. It
// returns the answer, or the client's own error.
func (c *sdk) ask(t *testing.T, url, how string, more map[string]any, at func(pieces int)) (sdkAnswer, time.Duration, string) {
	t.Helper()
	q, err := json.Marshal(map[string]any{
		"url": url + "/v1", "model": llmtest.Model, "message": sdkMessage, "max_tokens": 200, "how": how, "more": more,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(c.stdin, "%s\n", q); err != nil {
		t.Fatal(err)
	}
	var gap time.Duration
	last := time.Time{}
	for pieces := 1; ; pieces++ {
		line, err := c.lines.ReadBytes('\n')
		if err != nil {
			t.Fatalf("the %s client has ended: %v", c.name, err)
		}
		var said struct {
			Piece  *string
			Answer *sdkAnswer
			Error  string
		}
		if err := json.Unmarshal(line, &said); err != nil {
			t.Fatalf("the %s client says %s: %v", c.name, line, err)
		}
		switch {
		case said.Answer != nil:
			return *said.Answer, gap, ""
		case said.Error != "":
			return sdkAnswer{}, gap, said.Error
		}
		if now := time.Now(); !last.IsZero() {
			gap = max(gap, now.Sub(last))
		}
		last = time.Now()
		at(pieces)
	}
}

// breakEach breaks the engine that serves after some pieces of each client's answer, and checks
// that the answer is as without a break.
func (g *llmGateway) breakEach(t *testing.T, step int, fail, mend func(engine int)) {
	t.Helper()
	var longest time.Duration
	rounds := 0
	for _, c := range sdks(t) {
		for _, how := range []string{"plain", "helper"} {
			want, _, failed := c.ask(t, g.url, how, nil, func(int) {})
			if failed != "" || want.Text == "" || want.IDs != 1 || want.Roles != 1 || len(want.Finish) != 1 || want.Usage.Completion < llmBreaks {
				t.Fatalf("%s, %s, without a break: %+v, %s", c.name, how, want, failed)
			}
			for after := 1; after <= llmBreaks; after += step {
				broken := -1
				got, gap, failed := c.ask(t, g.url, how, nil, func(pieces int) {
					if pieces < after || broken >= 0 {
						return
					}
					broken = g.serving(t)
					fail(broken)
				})
				if failed != "" || fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%s, %s, broken after %d pieces: got %+v, %s, want %+v", c.name, how, after, got, failed, want)
				}
				rounds++
				longest = max(longest, gap)
				mend(broken)
				g.both(t)
			}
		}
	}
	t.Logf("%d answers with a break were as without; the longest gap is %v", rounds, longest.Round(time.Millisecond))
}

// TestLLMGatewayKilled kills the engine that serves while OpenAI's own clients read. Text,
// finish reason and usage are as without a kill, under one id and one role. Every tenth token
// is enough, unless LLM_EACH is set.
func TestLLMGatewayKilled(t *testing.T) { //nolint:paralleltest // the engines need the processors
	g := newLLMGateway(t)
	g.breakEach(t, llmStep(10), func(n int) { g.engines[n].Kill() }, func(n int) {
		g.engines[n].Restart()
		g.engines[n].AwaitReady()
	})
}

// TestLLMGatewayFrozen suspends it instead.
func TestLLMGatewayFrozen(t *testing.T) { //nolint:paralleltest // the engines need the processors
	g := newLLMGateway(t, "--item-timeout", "3s")
	g.breakEach(t, llmStep(40), func(n int) { g.engines[n].Freeze() }, func(n int) { g.engines[n].Thaw() })
}

// TestLLMGatewayCannotCarryOn breaks an answer that cannot be carried on, and asks when no engine
// is left. Each client asks once, raises one error, and takes nothing for whole.
func TestLLMGatewayCannotCarryOn(t *testing.T) { //nolint:paralleltest // the engines need the processors
	access := filepath.Join(t.TempDir(), "access.log")
	g := newLLMGateway(t, "--wait-restore", "0s", "--access-log", access)
	asked := 0
	once := func(who string) {
		t.Helper()
		asked++
		for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			lines, err := os.ReadFile(access)
			if err != nil {
				t.Fatal(err)
			}
			// A line is written behind the error that the client has already.
			n := strings.Count(string(lines), "\n")
			if n < asked && time.Now().Before(end) {
				continue
			}
			if n != asked {
				t.Errorf("%s: %d requests were made in all, want %d", who, n, asked)
				asked = n
			}
			return
		}
	}
	clients := sdks(t)
	for _, c := range clients {
		for _, how := range []string{"plain", "helper"} {
			broken := -1
			// Another engine says something else, and none is done when it is killed.
			more := map[string]any{"logprobs": true, "temperature": 1.5, "ignore_eos": true, "max_tokens": 600}
			got, _, failed := c.ask(t, g.url, how, more, func(pieces int) {
				if pieces < 60 || broken >= 0 { // two that begin alike differ by then
					return
				}
				broken = g.serving(t)
				g.engines[broken].Kill()
			})
			if !strings.Contains(failed, "cannot carry on") {
				t.Errorf("%s, %s took a part for the whole: %+v, %.200s", c.name, how, got, failed)
			}
			t.Logf("%s, %s: %.200s", c.name, how, failed)
			once(c.name + ", " + how)
			if broken >= 0 {
				g.engines[broken].Restart()
				g.engines[broken].AwaitReady()
			}
			g.both(t)
		}
	}
	for _, e := range g.engines {
		e.Kill()
	}
	for _, c := range clients {
		got, _, failed := c.ask(t, g.url, "plain", nil, func(int) {})
		if failed == "" {
			t.Errorf("%s has an answer that nobody gave: %+v", c.name, got)
		}
		t.Logf("%s, no engine left: %.200s", c.name, failed)
		once(c.name + ", no engine left")
	}
}

// TestLLMGatewayRestarts restarts engines under a load of 8 clients: 5 times, or 200 if LLM_EACH
// is set. Greedy answers are the same each time; every one is whole, or ends with a proper error.
func TestLLMGatewayRestarts(t *testing.T) { //nolint:paralleltest // the engines need the processors
	restarts := 5
	if os.Getenv("LLM_EACH") != "" {
		restarts = 200
	}
	// An answer may take longer than an engine lives.
	g := newLLMGateway(t, "--attempts", "20")
	question := fmt.Sprintf(`{"model":%q,"stream":true,"temperature":0,"max_tokens":30,"cache_prompt":false,"messages":[{"role":"user","content":%q}]}`, llmtest.Model, sdkMessage)
	ask := func() (string, error) {
		_, body, err := post(t, g.url+"/v1/chat/completions", question)
		return body, err
	}
	first, err := ask()
	if err != nil {
		t.Fatal(err)
	}
	want := textOfStream(t, first)
	ctx, enough := context.WithCancel(t.Context())
	defer enough()
	var callers sync.WaitGroup
	var whole, failed, migrated, other atomic.Int64
	for range 8 {
		callers.Go(func() {
			for n := 0; n == 0 || ctx.Err() == nil; n++ {
				body, err := ask()
				done := strings.HasSuffix(body, "data: [DONE]\n\n")
				migrated.Add(int64(strings.Count(body, ": migrated ")))
				switch {
				case done && err == nil && strings.Count(body, `"finish_reason":"length"`) == 1:
					whole.Add(1)
					if textOfStream(t, body) != want {
						other.Add(1) // two answers at once in one engine are another arithmetic
					}
				case !done && strings.Contains(body, `"error":{`):
					if failed.Add(1) == 1 {
						t.Logf("the first error: %v: %.1000s", err, body)
					}
					time.Sleep(100 * time.Millisecond) // as a client does that was told to come again
				default:
					t.Errorf("an answer is neither whole nor an error: %v: %s", err, body)
				}
			}
		})
	}
	for n := range restarts {
		e := g.engines[n%len(g.engines)]
		e.Kill()
		e.Restart()
		e.AwaitReady()
		g.both(t) // so that one is there when the next is killed
	}
	enough()
	callers.Wait()
	t.Logf("%d restarts: %d whole answers (%d of another text), %d proper errors, %d migrations", restarts, whole.Load(), other.Load(), failed.Load(), migrated.Load())
	if whole.Load() == 0 {
		t.Error("no answer was whole")
	}
}

// TestLLMGatewayPasses asks llama.cpp's own paths through the gateway.
func TestLLMGatewayPasses(t *testing.T) { //nolint:paralleltest // the engines need the processors
	g := newLLMGateway(t)
	for path, body := range map[string]string{
		"/v1/messages":  `{"model":"smollm2","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}`,
		"/v1/responses": `{"model":"smollm2","max_output_tokens":5,"input":"hi"}`,
	} {
		for _, streamed := range []bool{false, true} {
			asked := body
			if streamed {
				asked = strings.Replace(body, "{", `{"stream":true,`, 1)
			}
			resp, answer, err := post(t, g.url+path, asked)
			if resp == nil {
				t.Fatal(err)
			}
			isStream := strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream")
			if err != nil || resp.StatusCode != http.StatusOK || isStream != streamed || len(answer) < 50 {
				t.Errorf("%s, streamed %v: status %d, %v, %v: %.300s", path, streamed, resp.StatusCode, resp.Header, err, answer)
			}
			if streamed && !strings.Contains(answer, "event: ") {
				t.Errorf("%s streams %.300s", path, answer)
			}
		}
	}
}
