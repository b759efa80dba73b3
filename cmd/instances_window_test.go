//go:build unix

package cmd_test

import (
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
	"golang.org/x/term"
)

// window is a terminal window in which a command runs. It is safe for concurrent use.
type window struct {
	terminal, commands *os.File // the two ends
	p                  *process
	before             term.State

	mu      sync.Mutex
	changed chan struct{} // closed at the next change
	raw     strings.Builder
	screen  *vt.Emulator
	columns int      // the least there were
	shows   []string // what it has shown, one after the other
}

// openWindow runs a command in a window of that size.
func (w *world) openWindow(t *testing.T, columns, rows int, env []string, args ...string) *window {
	t.Helper()
	terminal, commands, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		t.Fatal(err)
	}
	win := &window{
		terminal: terminal, commands: commands, changed: make(chan struct{}),
		screen: vt.NewEmulator(columns, rows), columns: columns,
	}
	win.resize(t, columns, rows)
	win.before = win.mode(t)
	win.p = &process{
		cmd: &exec.Cmd{
			Path: path, Args: args, Dir: w.dir, Env: append(append(w.env, "TERM=xterm-256color"), env...),
			Stdin: commands, Stdout: commands, Stderr: commands,
			SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: true},
		},
		stdout: newRecording(), stderr: newRecording(), ended: make(chan struct{}),
	}
	if err := win.p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(win.read)
	var answering sync.WaitGroup
	answering.Go(func() { _, _ = io.Copy(terminal, win.screen) }) // what the command asks the terminal
	go func() {
		defer close(win.p.ended)
		_ = win.p.cmd.Wait() // exitCode tells
	}()
	t.Cleanup(func() {
		win.p.kill()
		_ = commands.Close() // both may be closed already
		_ = terminal.Close()
		reading.Wait()
		if answers, ok := win.screen.InputPipe().(io.Closer); ok {
			_ = answers.Close()
		}
		answering.Wait()
		if strings.Contains(win.text(), "panic") || strings.Contains(win.text(), "DATA RACE") {
			t.Errorf("the command printed:\n%s", win.text())
		}
	})
	return win
}

// resize changes the window's size, as a user does.
func (win *window) resize(t *testing.T, columns, rows int) {
	t.Helper()
	win.mu.Lock()
	defer win.mu.Unlock()
	win.columns = min(win.columns, columns)
	win.screen.Resize(columns, rows)
	if err := pty.Setsize(win.terminal, &pty.Winsize{Cols: uint16(columns), Rows: uint16(rows)}); err != nil {
		t.Fatal(err)
	}
}

// typed types keys.
func (win *window) typed(t *testing.T, keys string) {
	t.Helper()
	if _, err := win.terminal.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// mode returns how the terminal treats what is typed.
func (win *window) mode(t *testing.T) term.State {
	t.Helper()
	state, err := term.GetState(int(win.commands.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return *state
}

// text returns what the window shows.
func (win *window) text() string {
	win.mu.Lock()
	defer win.mu.Unlock()
	return win.shown()
}

func (win *window) shown() string {
	lines := strings.Split(win.screen.String(), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " ")
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n")
}

// history returns what the window has shown, one after the other.
func (win *window) history() []string {
	win.mu.Lock()
	defer win.mu.Unlock()
	return slices.Clone(win.shows)
}

// written returns all that was written to it, colours and all.
func (win *window) written() string {
	win.mu.Lock()
	defer win.mu.Unlock()
	return win.raw.String()
}

// await waits until shows accepts what the window shows.
func (win *window) await(t *testing.T, what string, shows func(text string) bool) string {
	t.Helper()
	deadline := time.After(patience)
	for {
		win.mu.Lock()
		text, changed := win.shown(), win.changed
		win.mu.Unlock()
		if shows(text) {
			return text
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("no %s within %v; the window shows:\n%s", what, patience, text)
		}
	}
}

// fits reports lines that were too long for the window, of those that were printed and not
// drawn on the alternate screen.
func (win *window) fits(t *testing.T) {
	t.Helper()
	before, drawn, _ := strings.Cut(win.written(), "\x1b[?1049h")
	_, after, _ := strings.Cut(drawn, "\x1b[?1049l")
	printed := before + after
	for line := range strings.Lines(ansi.Strip(printed)) {
		if line = strings.TrimRight(line, "\r\n"); ansi.StringWidth(line) > win.columns {
			t.Errorf("a line is longer than the window is wide: %q", line)
		}
	}
}

func (win *window) read() {
	buf := make([]byte, 4096)
	for {
		n, err := win.terminal.Read(buf)
		win.mu.Lock()
		win.raw.Write(buf[:n])
		_, _ = win.screen.Write(buf[:n]) // it takes everything
		if text := win.shown(); len(win.shows) == 0 || text != win.shows[len(win.shows)-1] {
			win.shows = append(win.shows, text)
		}
		close(win.changed)
		win.changed = make(chan struct{})
		win.mu.Unlock()
		if err != nil {
			return // the command has ended, or the window is closed
		}
	}
}
