//go:build unix

package command_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/request-migration/migrate/pkg/engine/command"
	"github.com/request-migration/migrate/pkg/stream"
)

// TestData shows what a program finds on its standard input.
func TestData(t *testing.T) {
	t.Parallel()
	e := newEngine(t, command.Config{Args: []string{"cat"}})
	long := strings.Repeat("0123456789abcdef", 1<<15) // more than a pipe holds
	for name, tt := range map[string]struct{ data, want string }{
		"a string":      {`"hi \"you\"\n"`, "hi \"you\"\n"},
		"no string":     {`{"a":[1,null]}`, `{"a":[1,null]}`},
		"empty":         {`""`, ""},
		"a long string": {`"` + long + `"`, long},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := ask(t, e, stream.Request{Data: []byte(tt.data)})
			if a.err != nil || a.text() != tt.want {
				t.Errorf("the answer is %.60q, %v; want %.60q", a.text(), a.err, tt.want)
			}
		})
	}
}

// TestUnread has a program that does not read its standard input.
func TestUnread(t *testing.T) {
	t.Parallel()
	a := ask(t, newEngine(t, sh("echo done")), question(strings.Repeat("x", 1<<19)))
	if a.err != nil || a.text() != "done\n" {
		t.Errorf("the answer is %q, %v", a.text(), a.err)
	}
}

// TestEnvironment shows the variables that a program gets, and that none of them
// comes from elsewhere.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	cfg := sh(`echo "$MIGRATE_REQUEST_ID|$MIGRATE_ATTEMPT|$MIGRATE_FROM|${MIGRATE_PREFIX-unset}|${TRACEPARENT-unset}|${TRACESTATE-unset}|${BAGGAGE-unset}|$OWN"`)
	cfg.Env = append(os.Environ(), "OWN=x", "MIGRATE_PREFIX=/stale", "TRACEPARENT=stale", "BAGGAGE=stale", "MIGRATE_REQUEST_ID=stale")
	cfg.ResumeBy = command.ResumeIndex
	e := newEngine(t, cfg)
	for name, tt := range map[string]struct {
		req  stream.Request
		want string
	}{
		"nothing": {stream.Request{}, "|1|0|unset|unset|unset|unset|x\n"},
		"everything": {
			stream.Request{ID: "b1946ac9d2c41f08", Attempt: 3, From: 7, Headers: map[string]string{
				"traceparent": "00-1", "tracestate": "a=b", "baggage": "c=d", "other": "e",
			}},
			"b1946ac9d2c41f08|3|7|unset|00-1|a=b|c=d|x\n",
		},
		"a header that no variable holds": {
			stream.Request{Headers: map[string]string{"traceparent": "a\x00b"}}, "|1|0|unset|unset|unset|unset|x\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.req.Data = []byte(`""`)
			if a := ask(t, e, tt.req); a.err != nil || a.text() != tt.want {
				t.Errorf("got %q, %v; want %q", a.text(), a.err, tt.want)
			}
		})
	}
	for _, id := range []string{strings.Repeat("x", 2000), "a\x00b"} {
		if a := ask(t, e, stream.Request{ID: id, Data: []byte(`""`)}); a.err == nil || errors.Is(a.err, stream.ErrFailed) {
			t.Errorf("the id %.10q ends in %v, want the request's own error", id, a.err)
		}
	}
}

// TestEnds shows what the way in which a program ends means for its stream.
func TestEnds(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		script string
		items  []string
		kind   error  // nil for a whole answer, or one of package stream
		text   string // of the error
	}{
		"0":               {`echo a; echo b`, []string{"a\n", "b\n"}, nil, ""},
		"0, no output":    {`exit 0`, nil, nil, ""},
		"0, half a line":  {`echo a; printf b`, []string{"a\n", "b"}, nil, ""},
		"1":               {`echo a; echo why >&2; exit 1`, []string{"a\n"}, &stream.Error{}, "the program ended with exit code 1: why"},
		"1, half a line":  {`printf a; exit 1`, []string{"a"}, &stream.Error{}, "the program ended with exit code 1"},
		"75":              {`echo a; echo later >&2; exit 75`, []string{"a\n"}, stream.ErrFailedUnreported, "the program ended with exit code 75: later"},
		"75, half a line": {`echo a; printf b; exit 75`, []string{"a\n"}, stream.ErrFailedUnreported, "the program ended with exit code 75"},
		"SIGSEGV":         {`echo a; printf b; kill -SEGV $$`, []string{"a\n"}, stream.ErrFailedUnreported, "the program was ended by a signal: segmentation fault"},
		"SIGKILL":         {`kill -KILL $$`, nil, stream.ErrFailedUnreported, "the program was ended by a signal: killed"},
		"143":             {`exit 143`, nil, &stream.Error{}, "the program ended with exit code 143"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := ask(t, newEngine(t, sh("ulimit -c 0; "+tt.script)), question(""))
			if !slices.Equal(a.items, tt.items) {
				t.Errorf("the items are %q, want %q", a.items, tt.items)
			}
			if _, own := tt.kind.(*stream.Error); own { //nolint:errorlint // it stands for its type
				_, own = errors.AsType[*stream.Error](a.err)
				if !own || a.err.Error() != tt.text {
					t.Errorf("it ends with %v, want the request's own error %q", a.err, tt.text)
				}
				return
			}
			if !errors.Is(a.err, tt.kind) || tt.kind != nil && strings.TrimSuffix(a.err.Error(), " (core dumped)") != tt.text {
				t.Errorf("it ends with %v, want %q", a.err, tt.text)
			}
		})
	}
}

// TestLastWords shows how much of a program's standard error the caller gets.
func TestLastWords(t *testing.T) {
	t.Parallel()
	a := ask(t, newEngine(t, sh(`i=0; while [ $i -lt 2000 ]; do echo "line $i é" >&2; i=$((i+1)); done; printf '\377end' >&2; exit 3`)), question(""))
	own, ok := errors.AsType[*stream.Error](a.err)
	if !ok {
		t.Fatalf("it ends with %v, want the request's own error", a.err)
	}
	if len(own.Message) > 4096 || !strings.HasPrefix(own.Message, "the program ended with exit code 3: ") ||
		!strings.HasSuffix(own.Message, "line 1999 é\n\ufffdend") {
		t.Errorf("the message has %d bytes: %.60q … %q", len(own.Message), own.Message, own.Message[max(0, len(own.Message)-40):])
	}
	data := string(own.Data)
	if !strings.HasPrefix(data, `{"exit_code":3,"stderr":"`) || len(data) < 4096 || len(data) > 5000 || !strings.HasSuffix(data, `line 1999 é\n`+"\ufffd"+`end"}`) {
		t.Errorf("the data has %d bytes: %.60q", len(data), data)
	}
}

// TestStandardErrorLogged shows what of it is in the log, and in what form.
func TestStandardErrorLogged(t *testing.T) {
	t.Parallel()
	var log records
	cfg := sh(`printf 'one\n10%%\r20%%\r\n\033[31mred\033[0m\ttab\n\n' >&2; head -c 3000 /dev/zero | tr '\0' x >&2; printf last >&2`)
	cfg.Logger = newLogger(&log)
	if a := ask(t, newEngine(t, cfg), question("")); a.err != nil {
		t.Fatal(a.err)
	}
	var said []string
	for line := range strings.Lines(log.all()) {
		if _, text, ok := strings.Cut(line, "DEBUG program says stderr="); ok {
			said = append(said, strings.TrimSuffix(text, "\n"))
		}
	}
	xs := strings.Repeat("x", 1024)
	want := []string{"one", "10%", "20%", "\ufffd[31mred\ufffd[0m tab", xs, xs, xs[:952] + "last"}
	if !slices.Equal(said, want) {
		t.Errorf("the log has\n%q\nwant\n%q", said, want)
	}
}

// TestLogPanics has the user's log panic, in the engine's own goroutines too.
func TestLogPanics(t *testing.T) {
	t.Parallel()
	cfg := sh("echo said >&2; echo hi")
	cfg.Logger = newLogger(&records{on: func(string) { panic("no log today") }})
	if a := ask(t, newEngine(t, cfg), question("")); a.err != nil || a.text() != "hi\n" {
		t.Errorf("the answer is %q, %v", a.text(), a.err)
	}
}

// writeProgram writes a file that is to be started. No process may start
// meanwhile: it would hold the file open for a moment, and it could not be.
func writeProgram(t *testing.T, path, content string, mode os.FileMode) string {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestBeingWritten has somebody write the program when a request comes.
func TestBeingWritten(t *testing.T) {
	t.Parallel()
	program := writeProgram(t, filepath.Join(t.TempDir(), "program"), "#!/bin/sh\necho hi\n", 0o700)
	e := newEngine(t, command.Config{Args: []string{program}})
	f, err := os.OpenFile(program, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if a := ask(t, e, question("")); !errors.Is(a.err, stream.ErrOverloaded) {
		t.Errorf("it ends with %v, want %v", a.err, stream.ErrOverloaded)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCannotStart has commands that New refuses, since no request could start
// them.
func TestCannotStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		return writeProgram(t, filepath.Join(dir, name), content, mode)
	}
	for name, tt := range map[string]struct {
		cfg  command.Config
		want string
	}{
		"nothing":        {command.Config{}, "no command to run"},
		"not there":      {command.Config{Args: []string{"no-such-program"}}, "starting no-such-program: executable file not found in $PATH"},
		"no such path":   {command.Config{Args: []string{"/no/such/program"}}, "starting /no/such/program: no such file or directory"},
		"a directory":    {command.Config{Args: []string{dir}}, "is a directory"},
		"not executable": {command.Config{Args: []string{file("text", "hello", 0o600)}}, "permission denied"},
		"no interpreter": {command.Config{Args: []string{file("script", "#!/no/such/shell\n", 0o700)}}, "its interpreter does not exist"},
		"no program":     {command.Config{Args: []string{file("data", "hello", 0o700)}}, "exec format error"},
		"no directory":   {command.Config{Args: []string{"true"}, Dir: filepath.Join(dir, "none")}, "no such file or directory"},
		"items":          {command.Config{Args: []string{"true"}, Items: "words"}, `unknown items "words": valid are lines, chunks, json`},
		"resume":         {command.Config{Args: []string{"true"}, ResumeBy: "magic"}, `unknown way to resume "magic"`},
		"chunks by index": {
			command.Config{Args: []string{"true"}, Items: command.Chunks, ResumeBy: command.ResumeIndex}, "chunks cannot be resumed by index",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := command.New(tt.cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %v, want %q", err, tt.want)
			}
		})
	}
}

// TestCheckedUnseen has a program that would leave a trace if New let it run.
func TestCheckedUnseen(t *testing.T) {
	t.Parallel()
	trace := filepath.Join(t.TempDir(), "trace")
	e := newEngine(t, sh("echo ran >>"+trace))
	if _, err := os.Stat(trace); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the program ran before there was a request: %v", err)
	}
	if a := ask(t, e, question("")); a.err != nil {
		t.Error(a.err)
	}
	if b, err := os.ReadFile(trace); string(b) != "ran\n" {
		t.Errorf("after a request the trace is %q, %v", b, err)
	}
}

// TestVanished has a program that goes away after the server was started.
func TestVanished(t *testing.T) {
	t.Parallel()
	program := writeProgram(t, filepath.Join(t.TempDir(), "program"), "#!/bin/sh\necho hi\n", 0o700)
	e := newEngine(t, command.Config{Args: []string{program}})
	if a := ask(t, e, question("")); a.err != nil || a.text() != "hi\n" {
		t.Fatalf("the answer is %q, %v", a.text(), a.err)
	}
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	a := ask(t, e, question(""))
	if !errors.Is(a.err, stream.ErrFailed) || errors.Is(a.err, stream.ErrFailedUnreported) {
		t.Errorf("it ends with %v, want a break that is reported", a.err)
	}
}

// TestUnresumable has a request in the middle of an answer, for a program that
// has made no promise.
func TestUnresumable(t *testing.T) {
	t.Parallel()
	trace := filepath.Join(t.TempDir(), "trace")
	req := question("")
	req.From = 1
	if a := ask(t, newEngine(t, sh("echo ran >"+trace)), req); !errors.Is(a.err, stream.ErrUnresumable) {
		t.Errorf("it ends with %v, want %v", a.err, stream.ErrUnresumable)
	}
	if _, err := os.Stat(trace); err == nil {
		t.Error("the program ran")
	}
}

// TestByIndex has a program that begins where it is told.
func TestByIndex(t *testing.T) {
	t.Parallel()
	cfg := sh(`seq $((MIGRATE_FROM + 1)) 5`)
	cfg.ResumeBy = command.ResumeIndex
	e := newEngine(t, cfg)
	for from, want := range map[int]string{0: "1\n2\n3\n4\n5\n", 3: "4\n5\n", 5: ""} {
		req := question("")
		req.From = from
		if a := ask(t, e, req); a.err != nil || a.text() != want {
			t.Errorf("from %d it answers %q, %v; want %q", from, a.text(), a.err, want)
		}
	}
}
