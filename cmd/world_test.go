//go:build unix

package cmd_test

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// world is a directory, a file store and an environment in which a test runs
// commands.
type world struct {
	dir, kv string
	env     []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{dir: t.TempDir()}
	w.kv = filepath.Join(w.dir, "kv")
	tmp := filepath.Join(w.dir, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	w.env = append(instrumentation(),
		"TMPDIR="+tmp, "DYN_FILE_KV="+w.kv, "HOME=/no-home", "PATH="+os.Getenv("PATH"))
	return w
}

// instrumentation returns the variables that control coverage and the race detector in
// the commands.
func instrumentation() []string {
	race := os.Getenv("GORACE")
	if race == "" {
		// By default each process waits 1 s before it exits.
		race = "atexit_sleep_ms=10"
	}
	env := []string{"GORACE=" + race}
	if dir := os.Getenv("GOCOVERDIR"); dir != "" {
		env = append(env, "GOCOVERDIR="+dir)
	}
	return env
}

// start starts a command, which ends with the test at the latest.
func (w *world) start(t *testing.T, stdin io.Reader, args ...string) *process {
	t.Helper()
	return w.startInto(t, stdin, nil, nil, args...)
}

// startInto is start for a command that writes to these files. Output to a nil one is
// recorded.
func (w *world) startInto(t *testing.T, stdin io.Reader, stdout, stderr *os.File, args ...string) *process {
	t.Helper()
	p, err := startInto(w.dir, w.env, stdin, stdout, stderr, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		if err := p.sound(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// serve starts a server that never fails unless flags say otherwise, and returns when it
// is registered.
func (w *world) serve(t *testing.T, name string, flags ...string) *process {
	t.Helper()
	p := w.start(t, nil, append([]string{"migrate", "serve", "--name", name, "--failure-mode", "never"}, flags...)...)
	awaitRegistered(t, p)
	return p
}

func awaitRegistered(t *testing.T, p *process) {
	t.Helper()
	if err := p.await(p.stderr, registered, 1); err != nil {
		t.Fatal(err)
	}
}

// run runs a command, which must end with that exit code.
func (w *world) run(t *testing.T, code int, stdin io.Reader, args ...string) (stdout, stderr string) {
	t.Helper()
	p := w.start(t, stdin, args...)
	w.ended(t, p, code)
	return p.stdout.String(), p.stderr.String()
}

// ended waits until p has ended. The exit code must be code.
func (w *world) ended(t *testing.T, p *process, code int) {
	t.Helper()
	got, err := p.wait()
	if err != nil {
		t.Fatalf("%v: %v", p.cmd.Args, err)
	}
	if got != code {
		t.Fatalf("%v: the exit code is %d, want %d; standard output:\n%s\nstandard error:\n%s", p.cmd.Args, got, code, p.stdout, p.stderr)
	}
}

// recordOf returns the name of the file that registers a server.
func (w *world) recordOf(t *testing.T, name string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(w.kv, "v1", "instances", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		value, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var record struct{ Name string }
		if err := json.Unmarshal(value, &record); err == nil && record.Name == name {
			return filepath.Base(file)
		}
	}
	t.Fatalf("no file registers %s, there are %v", name, files)
	return ""
}
