//go:build unix

package cmd_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/request-migration/migrate/pkg/engine/openai/openaitest"
)

// TestHelpExamples runs the examples in each command's help as they are printed
// there. Those of one command share an environment; a server goes on until the
// last of them has run.
func TestHelpExamples(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	overview, _ := w.run(t, 0, nil, "migrate", "--help")
	_, list, ok := strings.Cut(overview, "Available Commands:\n")
	if !ok {
		t.Fatalf("the help lists no commands:\n%s", overview)
	}
	list, _, _ = strings.Cut(list, "\n\n")
	commands := []string{""}
	for _, m := range regexp.MustCompile(`(?m)^  (\w+)`).FindAllStringSubmatch(list, -1) {
		commands = append(commands, m[1])
	}
	for _, command := range commands {
		if command == "help" || command == "completion" {
			continue // cobra's own, which have none
		}
		t.Run("migrate "+command, func(t *testing.T) {
			t.Parallel()
			runExamples(t, command)
		})
	}
}

func runExamples(t *testing.T, command string) {
	t.Helper()
	w := newWorld(t)
	// The default directory, as for a user who types the examples.
	w.kv = filepath.Join(w.dir, "tmp", "dynamo_store_kv")
	w.env = append(w.env, "DYN_FILE_KV=")
	help, _ := w.run(t, 0, nil, append([]string{"migrate"}, append(strings.Fields(command), "--help")...)...)
	_, examples, ok := strings.Cut(help, "Examples:\n")
	if !ok {
		t.Fatalf("no examples in:\n%s", help)
	}
	examples, _, _ = strings.Cut(examples, "\n\n"+map[bool]string{true: "Available", false: "Flags"}[command == ""])
	if strings.Contains(examples, "--model llama") {
		serveOpenAI(t, w, startProvider(t, &openaitest.Provider{OwnedBy: "vllm", Models: []string{"llama"}}), 1)
	}
	ran := 0
	var servers []*process
	for line := range strings.Lines(examples) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		ran++
		typed, background := strings.CutSuffix(line, " &")
		if background || regexp.MustCompile(`^(\w+=\S+ )*migrate (serve|gateway)\b`).MatchString(line) {
			// exec, so that it is the server that gets the signal.
			p := w.start(t, nil, "sh", "-c", "exec env "+typed)
			servers = append(servers, p)
			if !background {
				awaitServing(t, p)
			} // otherwise the next line follows at once, as when all are pasted
			continue
		}
		stdout, stderr := w.run(t, 0, nil, "sh", "-c", line)
		// Some examples find an empty list, and print where they looked.
		if stdout == "" || stderr != "" && !strings.HasPrefix(stderr, "no instances of ") {
			t.Errorf("%s: standard output %q, standard error %q", line, stdout, stderr)
		}
	}
	if ran == 0 {
		t.Errorf("no examples in:\n%s", help)
	}
	for _, p := range servers {
		awaitServing(t, p)
		if err := p.signal(syscall.SIGTERM); err != nil {
			t.Errorf("%v: %v", p.cmd.Args, err)
		}
		w.ended(t, p, 0)
	}
}

// awaitServing waits until a server or a gateway serves.
func awaitServing(t *testing.T, p *process) {
	t.Helper()
	if err := p.await(p.stderr, registered+"|Serving OpenAI clients", 1); err != nil {
		t.Fatal(err)
	}
}
