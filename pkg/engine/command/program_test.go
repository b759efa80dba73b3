//go:build unix

package command

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// TestReadLate reads what a program that has ended left in its pipe, after its
// client took longer than the grace.
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
	closeFiles(w)
	var got strings.Builder
	late := func(a stream.Annotated) error {
		got.Write(a.Data)
		return r.SetReadDeadline(time.Now().Add(-time.Second))
	}
	if err := late(stream.Annotated{}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.read(&sink{items: Lines, send: late}); err != nil || got.String() != `"left\n"` {
		t.Errorf("it reads %s, %v", &got, err)
	}
}
