//go:build unix

package cmd_test

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// newPipe returns both ends of a pipe, for a command to write to.
func newPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

// newFullPipe returns the end of a pipe that nobody reads and in which nothing
// more fits.
func newFullPipe(t *testing.T) *os.File {
	t.Helper()
	_, w := newPipe(t)
	var err error
	for err == nil {
		// It is what ends the write that does not fit.
		if err = w.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err == nil {
			_, err = w.Write(make([]byte, 4096))
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return w
}

// readUntil reads until it has read text.
func readUntil(t *testing.T, r *os.File, text string) {
	t.Helper()
	if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for read, buf := "", make([]byte, 4096); !strings.Contains(read, text); {
		n, err := r.Read(buf)
		if err != nil {
			t.Fatalf("waiting for %q in %q: %v", text, read, err)
		}
		read += string(buf[:n])
	}
}

// TestFullPipe ends commands whose output nobody reads.
func TestFullPipe(t *testing.T) {
	t.Parallel()
	const began = "discovery: snapshot of instances"
	for _, tt := range []struct {
		args string
		code int // without a signal
	}{
		{args: "request hello"},
		{args: "request hello --output json"},
		{args: "request hello --output raw"},
		{args: "request hello --output raw --resume"},
		{args: "request hello --output summary"},
		{args: "request hello --count 9 --concurrency 3 --output json"},
		{args: "instances"},
		{args: "instances --output json"},
		{args: "instances --probe"},
		{args: "instances --watch"},
		{args: "instances --watch --output json"},
		{args: "request hello --timeout 1s", code: 1},
		{args: "request hello --timeout 1s --output json --count 9", code: 1},
		{args: "request hello --timeout 1s --output raw --resume", code: 1},
		{args: "request hello --timeout 1s --count 9 --concurrency 3 --output json", code: 1},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.serve(t, "server1")
			p := w.startInto(t, nil, newFullPipe(t), nil, append([]string{"migrate", "--log", "discovery=debug"}, strings.Fields(tt.args)...)...)
			if tt.code != 0 {
				w.ended(t, p, tt.code)
				if s := p.stderr.String(); !strings.Contains(s, "no answer within --timeout 1s") {
					t.Errorf("standard error is %q, want the timeout in it", s)
				}
				return
			}
			if err := p.await(p.stderr, began, 1); err != nil {
				t.Fatal(err)
			}
			if err := p.signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			w.ended(t, p, 130)
			if s := p.stderr.String(); !strings.HasSuffix(s, "\nError: interrupted\n") {
				t.Errorf("standard error is %q, want interrupted last", s)
			}
		})
	}
}

// TestLogNobodyReads checks that a server goes on when the reader of its log has gone or
// does not read, and that it deregisters when a signal ends it.
func TestLogNobodyReads(t *testing.T) {
	t.Parallel()
	for _, tt := range []string{"gone", "does not read", "gone at the start"} {
		t.Run(tt, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r, into := newPipe(t)
			switch tt {
			case "does not read":
				into = newFullPipe(t)
			case "gone at the start":
				_ = r.Close()
			}
			server := w.startInto(t, nil, into, into, "migrate", "serve", "--failure-mode", "never", "--log", "debug")
			if tt == "gone" {
				readUntil(t, r, "Server initialized")
				_ = r.Close()
			}
			_ = into.Close() // only the server has it open now
			for range 3 {
				if stdout, _ := w.run(t, 0, nil, "migrate", "request", "hello", "--wait", patience.String(), "--output", "raw"); stdout != "hello\n" {
					t.Errorf("the answer is %q", stdout)
				}
			}
			if err := server.signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			w.ended(t, server, 0)
			w.run(t, 3, nil, "migrate", "request", "hello", "--wait", "0s")
		})
	}
}

// TestReaderGone ends commands that have nothing more to write for a long time
// when nobody reads them any more.
func TestReaderGone(t *testing.T) {
	t.Parallel()
	for args, last := range map[string]string{
		"instances --watch": "server1", "instances --watch --output json": "server1",
		"request hello": "data: h", "request hello --output json": `"item"`, "request hello --output raw --resume": "h",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			server := w.serve(t, "server1", "--delay", "1h", "--log", "stream=debug")
			r, into := newPipe(t)
			p := w.startInto(t, nil, into, nil, append([]string{"migrate"}, strings.Fields(args)...)...)
			readUntil(t, r, last)
			_, _ = into.Close(), r.Close()
			w.ended(t, p, 128+int(syscall.SIGPIPE))
			if s := p.stderr.String(); s != "" {
				t.Errorf("standard error is %q", s)
			}
			if strings.HasPrefix(args, "request") {
				if err := server.await(server.stderr, "stream: request over ", 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
