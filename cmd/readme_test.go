//go:build unix

package cmd_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/engine/openai/openaitest"
)

// TestReadme runs every command of the README as it stands there, in order, in
// an environment of its own, and compares what is printed.
func TestReadme(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1)
	if len(blocks) == 0 {
		t.Fatal("no code blocks found")
	}
	r := newReader(t)
	r.build(t, string(text))
	for _, block := range blocks {
		switch kind, body := block[1], block[2]; kind {
		case "console":
			for _, c := range parseConsole(body) {
				c.line = strings.NewReplacer(
					// Somebody's etcd may be there, and somebody's data.
					"-listen-client-url http://127.0.0.1:2379", "-listen-client-url http://127.0.0.1:0",
					"/tmp/migrate-etcd", t.TempDir(),
				).Replace(c.line)
				c = withProvider(t, c)
				isGateway := strings.HasPrefix(c.line, "migrate gateway ")
				if isGateway {
					c.line += " --listen 127.0.0.1:0"
					c.want = strings.ReplaceAll(c.want, "http://127.0.0.1:8090", "http://ADDRESS")
				}
				out := r.run(t, c)
				if isGateway {
					r.gateway = regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(out)
				}
				if strings.Contains(c.line, "testdata/etcd") {
					r.env = append(r.env, "ETCD_ENDPOINTS="+strings.TrimSpace(out))
				}
			}
		case "go":
			r.runProgram(t, body)
		case "sh":
			// What prints other figures each time. The test command can't run
			// itself; .ci/run does.
			switch {
			case body == "go test ./...\n":
			case strings.HasPrefix(body, "curl "):
				r.curl(t, strings.TrimSpace(body))
			default:
				r.succeed(t, strings.TrimSpace(body))
			}
		default:
			t.Errorf("a block of %s is not known to this test", kind)
		}
	}
}

// withProvider puts the addresses of providers in this process in place of those of engines.
func withProvider(t *testing.T, c command) command {
	t.Helper()
	for _, url := range regexp.MustCompile(`http://127\.0\.0\.1:800\d`).FindAllString(c.line, -1) {
		p := startProvider(t, &openaitest.Provider{OwnedBy: "llamacpp", Models: []string{"smollm2"}})
		c = command{strings.ReplaceAll(c.line, url, p.URL()), strings.ReplaceAll(c.want, url, p.URL())}
	}
	return c
}

// curl does what a curl command of the README does, at the gateway that was started last.
func (r *reader) curl(t *testing.T, line string) {
	t.Helper()
	parts := regexp.MustCompile(`^curl -N http://127\.0\.0\.1:8090(\S+) -d '(.*)'$`).FindStringSubmatch(line)
	if parts == nil {
		t.Fatalf("the README has %s, which this test does not understand", line)
	}
	_, body, err := post(t, r.gateway+parts[1], parts[2])
	if err != nil || !strings.HasSuffix(body, "data: [DONE]\n\n") {
		t.Errorf("%s prints %s, %v", line, body, err)
	}
}

// command is a command as typed at a prompt and what it prints.
type command struct {
	line string
	want string
}

func parseConsole(block string) []command {
	var commands []command
	for line := range strings.Lines(block) {
		if typed, ok := strings.CutPrefix(line, "$ "); ok {
			commands = append(commands, command{line: strings.TrimSpace(typed)})
		} else if n := len(commands); n > 0 {
			commands[n-1].want += line
		}
	}
	return commands
}

// reader is who follows the README: a shell in a clone, with a bin directory.
type reader struct {
	dir     string // the clone
	env     []string
	gateway string // the address of the one that was started
}

func newReader(t *testing.T) *reader {
	t.Helper()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	r := &reader{dir: dir, env: []string{
		"TMPDIR=" + t.TempDir(), "GOBIN=" + bin, "PATH=" + bin + string(os.PathListSeparator) + os.Getenv("PATH"),
	}}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch {
		case strings.HasPrefix(name, "DYN_"), strings.HasPrefix(name, "ETCD_"), strings.HasPrefix(name, "MIGRATE_"):
		case name == "TMPDIR", name == "GOBIN", name == "PATH", name == "SERVER_NAME", name == "FAILURE_MODE":
		default:
			r.env = append(r.env, v)
		}
	}
	return r
}

// build builds what the README runs with go run, once: on a fresh machine that
// takes minutes, which no deadline allows for, and go tells on standard error what
// it downloads.
func (r *reader) build(t *testing.T, text string) {
	t.Helper()
	programs := regexp.MustCompile(`(?m)^\$ (go (?:-C \S+ )?run \.)`).FindAllStringSubmatch(text, -1)
	if len(programs) == 0 {
		t.Fatal("the README runs no program")
	}
	built := make(map[string]bool)
	for _, p := range programs {
		if !built[p[1]] {
			built[p[1]] = true
			r.succeed(t, p[1]+" --help") // go run keeps what it has linked
		}
	}
}

// run runs a command to its end or, if it serves, until it has printed what it
// should; then it goes on until the test is over.
// It returns that.
func (r *reader) run(t *testing.T, c command) string {
	t.Helper()
	// The test's own context has ended by the time its cleanups run.
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "sh", "-c", "exec env "+c.line)
	out := &output{changed: make(chan struct{}, 1)}
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = r.dir, r.env, out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	runsOn := strings.Contains(c.line, "migrate serve") || strings.Contains(c.line, "migrate gateway") || strings.Contains(c.line, "testdata/etcd")
	if !runsOn {
		defer cancel()
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v\n%s", c.line, err, out)
		}
		if got, want := normalize(out.String()), normalize(c.want); got != want {
			t.Errorf("%s\nprints:\n%s\nthe README has:\n%s", c.line, got, want)
		}
		return out.String()
	}
	// The etcd of the tests ends with its standard input.
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was asked to end
	})
	deadline := time.After(patience)
	same := func() bool {
		got, want := normalize(out.String()), normalize(c.want)
		if strings.Contains(c.line, "migrate gateway") { // which engine is ready first is chance
			got, want = sorted(got), sorted(want)
		}
		return got == want
	}
	for !same() {
		select {
		case <-out.changed:
		case <-deadline:
			t.Fatalf("%s\nprints:\n%s\nthe README has:\n%s", c.line, out, c.want)
		}
	}
	return out.String()
}

// succeed runs a command whatever it prints.
func (r *reader) succeed(t *testing.T, line string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
	cmd.Dir, cmd.Env = r.dir, r.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", line, err, out)
	}
}

// runProgram runs a program of the README against two servers at the addresses
// that it names, one of which breaks the stream.
func (r *reader) runProgram(t *testing.T, source string) {
	t.Helper()
	dir := t.TempDir()
	mod, err := os.ReadFile(filepath.Join(r.dir, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile(filepath.Join(r.dir, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/request-migration/migrate"
	mod = bytes.Replace(mod, []byte("module "+module), []byte("module example.com/program\n\nrequire "+module+
		" v0.0.0\n\nreplace "+module+" => "+r.dir), 1)
	// Fixed ports could be taken: each address becomes that of a server here.
	addresses := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindAllString(source, -1)
	for i, address := range addresses {
		source = strings.Replace(source, address, r.server(t, i == 0), 1)
	}
	for name, content := range map[string][]byte{"go.mod": mod, "go.sum": sum, "main.go": []byte(source)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "run", "-mod=mod", ".")
	cmd.Dir, cmd.Env = dir, slices.Concat(r.env, []string{"GOFLAGS="})
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the README's program: %v\n%s", err, out)
	}
	var got strings.Builder
	for line := range strings.Lines(string(out)) {
		_, char, _ := strings.Cut(line, ", data: ")
		got.WriteString(strings.TrimSuffix(char, " true\n"))
	}
	if got.String() != "hello" {
		t.Errorf("the README's program prints %q, want the items of hello", out)
	}
}

// server starts a server and returns its address.
func (r *reader) server(t *testing.T, fails bool) string {
	t.Helper()
	mode := "never"
	if fails {
		mode = "always"
	}
	r.run(t, command{
		line: "SERVER_NAME=library-" + mode + " migrate serve --failure-mode " + mode + " --endpoint readme/library/" + mode,
		want: "2026-11-24 23:10:19.350 INFO serve: Server initialized: name=library-" + mode + ", failure_mode=" + mode + "\n",
	})
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "migrate instances --endpoint readme/library/"+mode)
	cmd.Dir, cmd.Env = r.dir, r.env
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(string(out))
}

// normalize takes out what differs from run to run: ids, ports, times, and the
// width of the columns that depends on them.
func normalize(s string) string {
	for _, r := range []struct{ pattern, with string }{
		{`127\.0\.0\.1:\d+`, "ADDRESS"},
		{`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}`, "TIME"},
		{`\b[0-9a-f]{9,14}\b`, "ID"},
		{` +`, " "},
		{` \n`, "\n"},
	} {
		s = regexp.MustCompile(r.pattern).ReplaceAllString(s, r.with)
	}
	return s
}

// sorted returns the lines of s in order.
func sorted(s string) string { return strings.Join(slices.Sorted(strings.Lines(s)), "") }

// output is what a command has printed so far.
type output struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	changed chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.changed <- struct{}{}:
	default:
	}
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
