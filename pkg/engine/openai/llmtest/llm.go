// Package llmtest runs a real LLM engine for tests.
package llmtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/internal/suspend"
)

// Model is the name as which tests list the model of an [Engine].
const Model = "smollm2"

// startTime is how long an engine may take to load its model on a busy machine.
const startTime = 2 * time.Minute

// An Engine is a real one: llama.cpp's server with a small language model, in a process of
// its own. It is greedy, and reads a token at a time, so that a continuation is exact. It
// ends with the test that started it.
//
// Its methods fail the test, so only the test's own goroutine may call them.
type Engine struct {
	tb      testing.TB
	python  string
	address string
	log     string
	cmd     *exec.Cmd
	stdin   io.Closer
	exited  chan struct{}
}

// Installed returns the folder in which the engine and OpenAI's clients are installed, or skips
// the test.
func Installed(tb testing.TB) string {
	tb.Helper()
	dir := os.Getenv("MIGRATE_LLM")
	if dir == "" {
		const why = "MIGRATE_LLM does not name a folder with llama.cpp and a model: make test-llm installs them and runs this test"
		if os.Getenv("MIGRATE_REQUIRE_OPTIONAL") != "" {
			tb.Fatal(why)
		}
		tb.Skip(why)
	}
	return dir
}

// Python returns the Python that has them.
func Python(tb testing.TB) string {
	tb.Helper()
	return filepath.Join(Installed(tb), "bin", "python")
}

// Start starts an engine, and returns when it is ready. It skips the test where there is
// none.
func Start(tb testing.TB) *Engine {
	tb.Helper()
	e := &Engine{
		tb: tb, python: Python(tb), log: filepath.Join(tb.TempDir(), "log"),
		address: net.JoinHostPort("127.0.0.1", strconv.Itoa(20000+rand.IntN(12000))),
	}
	tb.Cleanup(func() {
		e.end()
		if tb.Failed() {
			if log, err := os.ReadFile(e.log); err == nil {
				tb.Logf("the engine at %s: %s", e.address, log[max(0, len(log)-2000):])
			}
		}
	})
	e.Restart()
	e.AwaitReady()
	return e
}

// URL returns the base URL.
func (e *Engine) URL() string { return "http://" + e.address }

// Restart starts the engine again at its address. It does not wait until it is ready.
func (e *Engine) Restart() {
	e.tb.Helper()
	_, here, _, ok := runtime.Caller(0)
	if !ok {
		e.tb.Fatal("there is no path of this source file")
	}
	script := filepath.Join(filepath.Dir(here), "..", "..", "..", "..", "testdata", "llm", "engine.py")
	_, port, _ := net.SplitHostPort(e.address)
	e.cmd = exec.CommandContext(context.WithoutCancel(e.tb.Context()), e.python, script,
		"--port", port, "--greedy", "--micro-batch", "1")
	log, err := os.OpenFile(e.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		e.tb.Fatal(err)
	}
	defer log.Close() //nolint:errcheck // the child has its own
	e.cmd.Stdout, e.cmd.Stderr = log, log
	if e.stdin, err = e.cmd.StdinPipe(); err != nil {
		e.tb.Fatal(err)
	}
	if err := e.cmd.Start(); err != nil {
		e.tb.Fatalf("starting an engine: %v", err)
	}
	cmd, exited := e.cmd, make(chan struct{})
	e.exited = exited
	go func() { // until the process ends, for which end waits
		defer close(exited)
		_ = cmd.Wait() // how it ended is in its log
	}()
}

// AwaitReady waits until the engine has loaded its model.
func (e *Engine) AwaitReady() {
	e.tb.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	end := time.NewTimer(startTime)
	defer end.Stop()
	for {
		if status, _ := e.get("/health"); status == http.StatusOK {
			return
		}
		select {
		case <-ticker.C:
		case <-e.exited:
			e.tb.Fatal("the engine has ended")
		case <-end.C:
			e.tb.Fatalf("the engine is not ready after %v", startTime)
		}
	}
}

// Busy reports whether the engine is at work on an answer.
func (e *Engine) Busy() bool {
	e.tb.Helper()
	status, body := e.get("/slots")
	var slots []struct {
		Busy bool `json:"is_processing"`
	}
	if status != http.StatusOK || json.Unmarshal(body, &slots) != nil {
		e.tb.Fatalf("asking the engine for its slots: status %d: %s", status, body)
	}
	for _, slot := range slots {
		if slot.Busy {
			return true
		}
	}
	return false
}

// Models returns the ids of the engine's models.
func (e *Engine) Models() []string {
	e.tb.Helper()
	status, body := e.get("/v1/models")
	var list struct{ Data []struct{ ID string } }
	if status != http.StatusOK || json.Unmarshal(body, &list) != nil {
		e.tb.Fatalf("asking the engine for its models: status %d: %s", status, body)
	}
	ids := make([]string, 0, len(list.Data))
	for _, m := range list.Data {
		ids = append(ids, m.ID)
	}
	return ids
}

func (e *Engine) get(path string) (status int, body []byte) {
	ctx, cancel := context.WithTimeout(e.tb.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.URL()+path, http.NoBody)
	if err != nil {
		e.tb.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Append(nil, err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	body, err = io.ReadAll(resp.Body)
	if err != nil {
		return 0, fmt.Append(nil, err)
	}
	return resp.StatusCode, body
}

// Kill kills the engine at once.
func (e *Engine) Kill() {
	e.tb.Helper()
	if err := e.cmd.Process.Kill(); err != nil {
		e.tb.Fatalf("killing the engine: %v", err)
	}
	<-e.exited
}

// Freeze suspends the engine: its connections stay open and nothing answers on them.
func (e *Engine) Freeze() {
	e.tb.Helper()
	if err := suspend.Freeze(e.cmd.Process); err != nil {
		e.tb.Fatalf("freezing the engine: %v", err)
	}
}

// Thaw resumes a frozen engine.
func (e *Engine) Thaw() {
	e.tb.Helper()
	if err := suspend.Thaw(e.cmd.Process); err != nil {
		e.tb.Fatalf("thawing the engine: %v", err)
	}
}

// end ends the engine, if it runs.
func (e *Engine) end() {
	if e.cmd == nil || e.cmd.Process == nil {
		return
	}
	_ = e.cmd.Process.Kill() // fails only if it has ended
	_ = e.stdin.Close()
	<-e.exited
}
