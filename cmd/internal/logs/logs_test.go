package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muesli/termenv"
)

func TestParseLogSpec(t *testing.T) {
	t.Parallel()
	tests := []struct {
		spec string
		// The levels of serve and router; serve is never set apart.
		serve, router slog.Level
	}{
		{"", slog.LevelWarn, slog.LevelWarn},
		{"info", slog.LevelInfo, slog.LevelInfo},
		{"DEBUG", slog.LevelDebug, slog.LevelDebug},
		{"off", levelOff, levelOff},
		{"info,router=debug,discovery=debug", slog.LevelInfo, slog.LevelDebug},
		{" error , router = off ", slog.LevelError, levelOff},
		{"router=debug", slog.LevelWarn, slog.LevelDebug},
		{"info,router=debug,error", slog.LevelError, slog.LevelDebug},
		{"info,router=debug,router=warn,", slog.LevelInfo, slog.LevelWarn},
	}
	for _, tt := range tests {
		levels, err := parseLogSpec(tt.spec)
		if err != nil {
			t.Errorf("%q: %v", tt.spec, err)
			continue
		}
		if got := levels.of("serve"); got != tt.serve {
			t.Errorf("%q: serve is at %v, want %v", tt.spec, got, tt.serve)
		}
		if got := levels.of("router"); got != tt.router {
			t.Errorf("%q: router is at %v, want %v", tt.spec, got, tt.router)
		}
	}
}

func TestNewLogsNamesTheValidOnes(t *testing.T) {
	t.Parallel()
	const (
		levels     = "debug, info, warn, error, off"
		components = "serve, request, instances, router, discovery, stream"
	)
	tests := []struct{ spec, format, unknown, valid string }{
		{"loud", "text", `"loud"`, levels},
		{"info,router=loud", "text", `"loud"`, levels},
		{"info,router=", "text", `""`, levels},
		{"info,=debug", "text", `""`, components},
		{"info,kitchen=debug", "text", `"kitchen"`, components},
		{"info", "xml", `"xml"`, "text, json, logfmt"},
		{"info", "", `""`, "text, json, logfmt"},
	}
	for _, tt := range tests {
		_, err := New(io.Discard, tt.spec, tt.format)
		if err == nil {
			t.Errorf("%q, %q: no error", tt.spec, tt.format)
			continue
		}
		if msg := err.Error(); !strings.Contains(msg, tt.unknown) || !strings.Contains(msg, tt.valid) {
			t.Errorf("%q, %q: %q does not name %s and %q", tt.spec, tt.format, msg, tt.unknown, tt.valid)
		}
	}
}

func mustLogs(t *testing.T, w io.Writer, spec, format string) *Logs {
	t.Helper()
	l, err := New(w, spec, format)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLogLines(t *testing.T) {
	t.Parallel()
	const msg = "Server initialized: name=server1, failure_mode=first request only"
	tests := []struct{ format, want string }{
		{"text", `^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} INFO serve: ` + msg + ` id=7b wait=1\.5s` + "\n$"},
		{"logfmt", `^time=\S+T\S+ level=info msg="` + msg + `" component=serve id=7b wait=1\.5s` + "\n$"},
		{"json", `^{"time":"[^"]+T[^"]+","level":"info","msg":"` + msg +
			`","component":"serve","id":"7b","wait":1500000000}` + "\n$"},
	}
	for _, tt := range tests {
		var buf bytes.Buffer
		mustLogs(t, &buf, "info", tt.format).For("serve").Info(msg, "id", "7b", "wait", 1500*time.Millisecond)
		if !regexp.MustCompile(tt.want).Match(buf.Bytes()) {
			t.Errorf("%s:\n got %s\nwant %s", tt.format, buf.Bytes(), tt.want)
		}
	}
}

func TestLogLevelsByComponent(t *testing.T) {
	t.Parallel()
	for _, format := range Formats() {
		var buf bytes.Buffer
		l := mustLogs(t, &buf, "warn,router=debug,stream=off", format)
		for _, component := range logComponents() {
			logger := l.For(component)
			logger.Debug(component + "-debug")
			logger.With("a", 1).Info(component + "-info")
			logger.Error(component + "-error")
		}
		got := regexp.MustCompile(`[a-z]+-[a-z]+`).FindAllString(buf.String(), -1)
		want := "serve-error request-error instances-error " +
			"router-debug router-info router-error discovery-error engine-error"
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s:\n got %s\nwant %s", format, s, want)
		}
	}
}

// nilError panics when its Error is called on a nil pointer.
type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

type unencodable struct{}

func (unencodable) MarshalJSON() ([]byte, error) { return nil, errors.New("will not") }

type resolving struct{}

func (resolving) LogValue() slog.Value { return slog.StringValue("resolved") }

func oddValues() []any {
	return []any{
		"a\nb\r\n", `say "hi"=\`, "bad\xff\xfeUTF-8", "\x1b[31mred\x00", "", nil,
		errors.New("first\nsecond"), errors.Join(io.EOF, io.ErrUnexpectedEOF), (*nilError)(nil),
		1500 * time.Millisecond, time.Unix(0, 0).UTC(), math.NaN(), make(chan int), unencodable{},
		resolving{}, []byte("bytes\n"), json.RawMessage("{\"a\":\n1}"),
		slog.GroupValue(), slog.GroupValue(slog.String("in", "a\nb")),
	}
}

func TestEachRecordIsOneLine(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"json", "logfmt"} {
		for i, value := range append(oddValues(), "last") {
			var buf bytes.Buffer
			logger := mustLogs(t, &buf, "info", format).For("stream")
			logger.With("first", value).Info("odd\nmessage \xff", "key", value, "after", i)
			line, rest, ended := strings.Cut(buf.String(), "\n")
			if !ended || rest != "" || strings.ContainsAny(line, "\r\x00\x1b") {
				t.Errorf("%s, value %d: not one plain line: %q", format, i, buf.String())
			}
			if format == "logfmt" {
				if !strings.HasSuffix(line, " after="+strconv.Itoa(i)) {
					t.Errorf("value %d: the last field is not whole: %s", i, line)
				}
				continue
			}
			var record map[string]any
			if err := json.Unmarshal([]byte(line), &record); err != nil {
				t.Errorf("value %d: %v: %s", i, err, line)
			}
			if record["component"] != "stream" || record["after"] != float64(i) || record["msg"] != "odd\nmessage \ufffd" {
				t.Errorf("value %d: fields are lost: %s", i, line)
			}
		}
	}
}

func TestAttributesWithKeysOfTheRecordAreShown(t *testing.T) {
	t.Parallel()
	for _, format := range Formats() {
		var buf bytes.Buffer
		logger := mustLogs(t, &buf, "info", format).For("discovery").With("level", "v-level", "who", resolving{})
		logger.Info("hello", "time", "v-time", "prefix", "v-prefix", "msg", "v-msg", "caller", "v-caller", "component", "v-comp")
		for _, want := range []string{"hello", "discovery", "resolved", "v-level", "v-time", "v-prefix", "v-msg", "v-caller", "v-comp"} {
			if strings.Count(buf.String(), want) != 1 {
				t.Errorf("%s: not once %q: %s", format, want, buf.String())
			}
		}
	}
}

func TestTextMessageStaysOnOneLine(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	mustLogs(t, &buf, "info", "text").For("serve").Info("name=a\tb\nINFO serve: forged \x1b[2J é\"")
	if want := `serve: name=a\tb\nINFO serve: forged \x1b[2J é"` + "\n"; !strings.HasSuffix(buf.String(), want) {
		t.Errorf("got %q, want it to end in %q", buf.String(), want)
	}
}

func TestLogColours(t *testing.T) {
	t.Setenv("CLICOLOR_FORCE", "1")
	var buf bytes.Buffer
	l := mustLogs(t, &buf, "info", "text")
	l.For("serve").Info("plain", "key", "value")
	if strings.Contains(buf.String(), "\x1b") {
		t.Errorf("colours where there is no terminal: %q", buf.String())
	}

	// What New finds for a terminal.
	l.profile = termenv.ANSI
	buf.Reset()
	l.For("serve").Info("Server initialized: name=server1", "key", "value")
	if s := buf.String(); !strings.Contains(s, "\x1b[") || !strings.Contains(s, "Server initialized: name=server1") {
		t.Errorf("no colours, or no message: %q", s)
	}
}

// pieceWriter fails the test when two Writes overlap, and keeps each apart.
type pieceWriter struct {
	t      *testing.T
	busy   sync.Mutex
	pieces []string
}

func (w *pieceWriter) Write(p []byte) (int, error) {
	if !w.busy.TryLock() {
		w.t.Error("two writes at once")
		return 0, io.ErrClosedPipe
	}
	defer w.busy.Unlock()
	runtime.Gosched() // Let another logger in, if it could come in.
	w.pieces = append(w.pieces, string(p))
	return len(p), nil
}

func TestLoggersDoNotInterleave(t *testing.T) {
	t.Parallel()
	const each = 200
	for _, format := range Formats() {
		w := &pieceWriter{t: t}
		l := mustLogs(t, w, "info", format)
		var wg sync.WaitGroup
		for _, component := range logComponents() {
			wg.Go(func() {
				logger := l.For(component)
				for i := range each {
					logger.Info("hello", "i", i)
				}
			})
		}
		wg.Wait()
		if got, want := len(w.pieces), each*len(logComponents()); got != want {
			t.Errorf("%s: %d writes, want %d", format, got, want)
		}
		for _, piece := range w.pieces {
			if strings.Count(piece, "\n") != 1 || !strings.HasSuffix(piece, "\n") {
				t.Fatalf("%s: a write that is not one line: %q", format, piece)
			}
		}
	}
}
