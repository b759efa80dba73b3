//go:build unix

package cmd_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/creack/pty"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/file"
	"github.com/request-migration/migrate/pkg/stream"
)

// TestLoad makes many requests over a server that fails and one that does not.
func TestLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve(t, "faulty", "--failure-mode", "2-4")
	w.serve(t, "sound")
	stdout, stderr := w.run(t, 0, nil, "migrate", "request", fox, "--resume", "--count", "500", "--concurrency", "10")
	if stderr != "" {
		t.Errorf("standard error is %q", stderr)
	}
	for _, pattern := range []string{
		`(?m)^requests +500 in .*: 500 success$`,
		`(?m)^wrong answers +0$`,
		`(?m)^items +21500 \(\d+/s\), 0 of them repeated$`,
		`(?m)^attempts +\d+, [123] requests migrated$`,
		`(?m)^breaks +[123] failed$`,
		`(?m)^served +faulty [\d.]+%, sound [\d.]+%$`,
		`(?m)^first item +p50 .*, p90 .*, p99 .*, max .*$`,
		`(?m)^failover gap +p50 .*, max .*$`,
		`(?m)^ +[\d.]+[µm]?s +#+ +\d+$`,
	} {
		if !regexp.MustCompile(pattern).MatchString(stdout) {
			t.Errorf("the summary lacks %s:\n%s", pattern, stdout)
		}
	}
}

// TestLoadFindsWrongAnswers uses a server whose answers are complete and have the right
// form, but one of them has a wrong character.
func TestLoadFindsWrongAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wrong := stream.Handler(func(_ context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		for _, char := range []string{"h", "e", "l", "l", "0"} {
			if err := send(stream.Annotated{Data: stream.String("from server: liar, data: " + char)}); err != nil {
				return err
			}
		}
		return nil
	})
	register(t, w, wrong)
	for _, output := range []string{"summary", "json"} {
		stdout, stderr := w.run(t, 1, nil, "migrate", "request", "hello", "--count", "20", "--concurrency", "4", "--output", output)
		if !strings.Contains(stderr, `wrong answer: request`) || !strings.Contains(stderr, `got "hell0", want "hello"`) {
			t.Errorf("%s: standard error is %q", output, stderr)
		}
		if output == "summary" && !strings.Contains(stdout, "wrong answers  20\n") {
			t.Errorf("the summary is\n%s", stdout)
		}
	}
}

// register runs a server with a handler of the test's own, and lists it in w.
func register(t *testing.T, w *world, handler stream.Handler) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &stream.Server{Handler: handler}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-served; !errors.Is(err, stream.ErrClosed) {
			t.Error(err)
		}
	})
	store, err := file.Open(file.Config{Dir: w.kv})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	_, _, err = discovery.NewRegistry(store, nil).Register(t.Context(), discovery.Instance{
		ID: discovery.NewInstanceID(), Name: "liar", Transport: discovery.NDJSON, Address: l.Addr().String(),
		Endpoint: discovery.Endpoint{Namespace: "dynamo", Component: "backend", Name: "generate"},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestLoadShowsProgress checks that there is a progress bar if standard error is a
// terminal, and none otherwise.
func TestLoadShowsProgress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve(t, "sound", "--delay", "2ms")
	path, err := exec.LookPath("migrate")
	if err != nil {
		t.Fatal(err)
	}
	terminal, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	cmd := exec.CommandContext(t.Context(), path, "request", fox, "--count", "50", "--concurrency", "5")
	cmd.Env, cmd.Stderr = slices.Concat(w.env, []string{"TERM=xterm"}), tty
	stdout, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := tty.Close(); err != nil {
		t.Fatal(err)
	}
	drawn, _ := io.ReadAll(terminal) // a terminal whose other end is closed ends with an error
	if !regexp.MustCompile(`\d+ of 50 requests`).Match(drawn) {
		t.Errorf("the terminal shows %q", drawn)
	}
	if !strings.HasPrefix(string(stdout), "requests") {
		t.Errorf("standard output is %q", stdout)
	}
}
