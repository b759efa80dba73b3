//go:build unix

package command

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// TestReadLate has a client take longer than the grace, after the program has
// ended: whoever holds the output now is waited for as if that had not been.
func TestReadLate(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer closeFiles(r)
	p := &program{e: &Engine{cfg: Config{Grace: time.Minute}}, out: r, exited: make(chan struct{})}
	close(p.exited)
	if _, err := w.WriteString("left\n"); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	_, err = p.read(&sink{items: Lines, send: func(a stream.Annotated) error {
		got.Write(a.Data)
		if got.Len() == len(a.Data) {
			time.AfterFunc(10*time.Millisecond, func() {
				_, _ = w.WriteString("late\n") // read tells
				closeFiles(w)
			})
		}
		return r.SetReadDeadline(time.Now().Add(-time.Second)) // what the time that has passed does
	}})
	if err != nil || got.String() != `"left\n""late\n"` {
		t.Errorf("it reads %s, %v", &got, err)
	}
}

// TestReadPaused has the time pass while this process does not run: what is in
// the pipe counts, and its end does.
func TestReadPaused(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer closeFiles(r)
	passed := func() {
		t.Helper()
		if err := r.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 3)
	passed()
	if n, err := readPipe(r, buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("while nothing is there it reads %d bytes, %v", n, err)
	}
	if _, err := w.WriteString("left"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"lef", "t"} {
		passed()
		if n, err := readPipe(r, buf); err != nil || string(buf[:n]) != want {
			t.Errorf("it reads %q, %v; want %q", buf[:n], err, want)
		}
	}
	closeFiles(w)
	passed()
	if n, err := readPipe(r, buf); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("at the end it reads %d bytes, %v", n, err)
	}
}
