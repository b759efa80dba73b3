package command

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/request-migration/migrate/pkg/stream"
)

// TestOrphans has this process inherit the children that programs leave behind, as
// a container's first process does. It reaps them.
func TestOrphans(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0); err != nil {
			t.Error(err)
		}
	}()
	e, err := New(Config{Args: []string{"sh", "-c", "(sleep 1000 & sleep 1000 & wait) >/dev/null 2>&1 & sleep 1000 >/dev/null 2>&1 & echo $$"}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	group := 0
	send := func(a stream.Annotated) error {
		text, _ := a.Text()
		for _, c := range text[:len(text)-1] {
			group = 10*group + int(c-'0')
		}
		return nil
	}
	if err := e.Handle(t.Context(), &stream.Request{Data: []byte(`""`)}, send); err != nil {
		t.Fatal(err)
	}
	if pid, err := unix.Wait4(-group, nil, unix.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("of group %d the child %d is left, %v", group, pid, err)
	}
}

// TestMaxPrograms has as many programs running as there can be.
func TestMaxPrograms(t *testing.T) {
	e, err := New(Config{Args: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	e.running.Store(maxPrograms)
	if err := e.Handle(t.Context(), &stream.Request{Data: []byte(`""`)}, nil); !errors.Is(err, stream.ErrOverloaded) {
		t.Errorf("one more ends with %v, want %v", err, stream.ErrOverloaded)
	}
	e.running.Store(maxPrograms - 1)
	if err := e.Handle(t.Context(), &stream.Request{Data: []byte(`""`)}, nil); err != nil {
		t.Errorf("the last one ends with %v", err)
	}
}
