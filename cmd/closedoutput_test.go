//go:build unix

package cmd_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestOutputNobodyReads checks that a request whose output cannot be written any more
// ends, and the server's handler with it.
func TestOutputNobodyReads(t *testing.T) {
	t.Parallel()
	for output, item := range map[string]string{"text": "data: x", "json": `"item"`, "raw": "x"} {
		t.Run(output, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			// The second item may come after the reader has gone.
			server := w.serve(t, "slow", "--delay", "200ms", "--log", "stream=debug")
			r, stdout := newPipe(t)
			client := exec.Command("migrate", "request", strings.Repeat("x", 1000), "--output", output, "--resume")
			stderr := newRecording()
			client.Dir, client.Env, client.Stdout, client.Stderr = w.dir, w.env, stdout, stderr
			if err := client.Start(); err != nil {
				t.Fatal(err)
			}
			hang := time.AfterFunc(patience, func() { _ = client.Process.Kill() })
			readUntil(t, r, item)
			if err := errors.Join(stdout.Close(), r.Close()); err != nil {
				t.Fatal(err)
			}
			if err := client.Wait(); err == nil {
				t.Error("the client exits with 0")
			}
			if !hang.Stop() {
				t.Error("the client went on")
			}
			if err := server.await(server.stderr, "stream: request over ", 1); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestOutputThatIsFull checks the error of an output that cannot be written.
func TestOutputThatIsFull(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal("there is no device that is full: ", err)
	}
	t.Cleanup(func() { _ = full.Close() })
	w := newWorld(t)
	w.serve(t, "server1")
	w.serve(t, "slow", "--delay", "1h", "--endpoint", "a/slow/one")
	for _, args := range []string{
		"request hello", "request hello --output json", "request hello --output raw --count 9",
		"instances", "instances --output json",
		// Nobody waits for the rest of an answer that nobody can read.
		"request hello --endpoint a/slow/one", "request hello --endpoint a/slow/one --output json",
		"request hello --endpoint a/slow/one --output raw --resume",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		client := exec.CommandContext(ctx, "migrate", strings.Fields(args)...)
		stderr := newRecording()
		client.Dir, client.Env, client.Stdout, client.Stderr = w.dir, w.env, full, stderr
		err := client.Run()
		if code := client.ProcessState.ExitCode(); code != 1 {
			t.Errorf("%s: the exit code is %d (%v), want 1", args, code, err)
		}
		if s := stderr.String(); !strings.HasPrefix(s, "Error: writing ") || strings.Count(s, "\n") != 1 {
			t.Errorf("%s: standard error is %q, want one line of error", args, s)
		}
	}
}
