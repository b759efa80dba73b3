//go:build unix

package command_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/engine/command"
	"github.com/request-migration/migrate/pkg/stream"
)

// vigil tells when the last of the processes has ended that have opened its
// file, for which a script says `exec 9>$VIGIL`.
type vigil struct{ f *os.File }

// newVigil adds the file's name to the program's environment.
func newVigil(t *testing.T, cfg *command.Config) vigil {
	t.Helper()
	name := filepath.Join(t.TempDir(), "vigil")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	cfg.Env = append(os.Environ(), "VIGIL="+name)
	return vigil{f}
}

// over waits until nobody has the file open.
func (v vigil) over(t *testing.T) {
	t.Helper()
	if err := v.f.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, v.f); err != nil {
		t.Fatalf("waiting for the end of all processes: %v", err)
	}
}

// TestCancelled cancels a hundred requests whose programs have children.
func TestCancelled(t *testing.T) {
	t.Parallel()
	cfg := sh(`exec 9>"$VIGIL"; sleep 1000 & sleep 1000 | cat & echo started; wait`)
	v := newVigil(t, &cfg)
	e := newEngine(t, cfg)
	var asking sync.WaitGroup
	slots := make(chan struct{}, 8)
	for range 100 {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			req := question("")
			err := e.Handle(ctx, &req, func(a stream.Annotated) error {
				if s, _ := a.Text(); s != "started\n" {
					t.Errorf("the program says %q", s)
				}
				cancel()
				return nil
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("it ends with %v, want %v", err, context.Canceled)
			}
		})
	}
	asking.Wait()
	v.over(t)
}

// TestBroken has a send fail, as it does when the stream is over.
func TestBroken(t *testing.T) {
	t.Parallel()
	cfg := sh(`exec 9>"$VIGIL"; while :; do echo again; done`)
	v := newVigil(t, &cfg)
	broke := errors.New("broke")
	req := question("")
	if err := newEngine(t, cfg).Handle(t.Context(), &req, func(stream.Annotated) error { return broke }); !errors.Is(err, broke) {
		t.Errorf("it ends with %v, want %v", err, broke)
	}
	v.over(t)
}

// TestPanic has send panic, as a function of the server's user may.
func TestPanic(t *testing.T) {
	t.Parallel()
	cfg := sh(`exec 9>"$VIGIL"; sleep 1000 & echo started; wait`)
	v := newVigil(t, &cfg)
	e := newEngine(t, cfg)
	func() {
		defer func() {
			if r := recover(); r != "mine" {
				t.Errorf("it panics with %v", r)
			}
		}()
		req := question("")
		_ = e.Handle(t.Context(), &req, func(stream.Annotated) error { panic("mine") })
	}()
	v.over(t)
}

// TestTerminated shows that a program may clean up when nobody wants its answer
// any more, and that one that does not end is killed.
func TestTerminated(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		script, trace string
		grace         time.Duration
	}{
		"cleans up": {`trap 'echo clean >"$TRACE"; exit' TERM; echo started; while :; do sleep 0.01; done`, "clean\n", patience},
		"in a child": {
			`(trap 'echo clean >"$TRACE"; exit' TERM; echo started; while :; do sleep 0.01; done) & wait`, "clean\n", patience,
		},
		"and writes":  {`trap 'seq 100000; echo clean >"$TRACE"; exit' TERM; echo started; while :; do sleep 0.01; done`, "clean\n", patience},
		"does not":    {`trap '' TERM; echo started; while :; do sleep 0.01; done`, "", 50 * time.Millisecond},
		"never stops": {`trap '' TERM; echo started; while :; do echo again; done`, "", 50 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			trace := filepath.Join(t.TempDir(), "trace")
			cfg := sh(`exec 9>"$VIGIL"; ` + tt.script)
			v := newVigil(t, &cfg)
			cfg.Env, cfg.Grace = append(cfg.Env, "TRACE="+trace), tt.grace
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			req := question("")
			err := newEngine(t, cfg).Handle(ctx, &req, func(stream.Annotated) error {
				cancel()
				return nil
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("it ends with %v, want %v", err, context.Canceled)
			}
			if got, err := os.ReadFile(trace); string(got) != tt.trace || err != nil && tt.trace != "" {
				t.Errorf("the program left %q, %v; want %q", got, err, tt.trace)
			}
			v.over(t)
		})
	}
}

// TestLeftBehind shows what becomes of processes that a program leaves behind.
func TestLeftBehind(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		script string
		grace  time.Duration
		items  []string
		held   bool
	}{
		"without the output":  {`sleep 1000 >/dev/null 2>&1 & echo hi`, patience, []string{"hi\n"}, false},
		"that write and end":  {`(sleep 0.1; echo late) & echo hi`, patience, []string{"hi\n", "late\n"}, false},
		"with the output":     {`sleep 1000 & echo hi`, 50 * time.Millisecond, []string{"hi\n"}, true},
		"outside their group": {`setsid sleep 2 9>&- & echo hi`, 50 * time.Millisecond, []string{"hi\n"}, true},
		"with standard error": {`setsid sleep 2 >/dev/null 9>&- & echo hi`, patience, []string{"hi\n"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := sh(`exec 9>"$VIGIL"; ` + tt.script)
			cfg.Grace = tt.grace
			v := newVigil(t, &cfg)
			a := ask(t, newEngine(t, cfg), question(""))
			if !slices.Equal(a.items, tt.items) {
				t.Errorf("the items are %q, want %q", a.items, tt.items)
			}
			held := a.err != nil && strings.Contains(a.err.Error(), "still holds its standard output")
			if held != tt.held || a.err != nil && (!held || errors.Is(a.err, stream.ErrFailed)) {
				t.Errorf("it ends with %v; want the request's own error: %v", a.err, tt.held)
			}
			v.over(t)
		})
	}
}

// TestHeldEnds shows that the way in which a program ends counts for more than
// what it leaves behind.
func TestHeldEnds(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]string{
		"exit 75":       "the program ended with exit code 75",
		"kill -KILL $$": "the program was ended by a signal: killed",
		"exit 3":        "the program ended with exit code 3",
		"exit 0":        "still holds its standard output",
	} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			cfg := sh("sleep 1000 & echo hi; printf half; " + script)
			cfg.Grace = 50 * time.Millisecond
			a := ask(t, newEngine(t, cfg), question(""))
			broke := script == "exit 75" || script == "kill -KILL $$"
			if a.err == nil || !strings.Contains(a.err.Error(), want) || errors.Is(a.err, stream.ErrFailedUnreported) != broke {
				t.Errorf("it ends with %v, want %q", a.err, want)
			}
			if got, want := a.text(), map[bool]string{true: "hi\n", false: "hi\nhalf"}[broke]; got != want {
				t.Errorf("the answer is %q, want %q", got, want)
			}
		})
	}
}

// TestSlowReader has a client that reads late: the program waits, nothing is
// lost when it has ended meanwhile, and its end is not taken for silence.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	for _, size := range []string{"4096", "4096000"} { // less and more than a pipe holds
		var log records
		cfg := testProgram(t, "fill", size)
		cfg.Items, cfg.Grace = command.Chunks, time.Millisecond
		cfg.Logger = newLogger(&log)
		said := make(chan struct{}, 1)
		log.on = func(line string) {
			if strings.Contains(line, "blocked after") {
				said <- struct{}{}
			}
		}
		e := newEngine(t, cfg)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		got := 0
		req := question("")
		err := e.Handle(ctx, &req, func(a stream.Annotated) error {
			if got == 0 {
				select {
				case <-said: // it can write no more, or has written everything
				case <-ctx.Done():
				}
			}
			got += len(a.Data) - len(`""`)
			return ctx.Err()
		})
		blocked := log.number(t, "blocked after ")
		if want := atoi(t, size); err != nil || got != want || blocked > min(want, 2<<20) {
			t.Errorf("of %s bytes %d came, and the program could write %d while nobody read: %v", size, got, blocked, err)
		}
	}
}
