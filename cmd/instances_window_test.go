//go:build unix

package cmd_test

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/creack/pty"
	"golang.org/x/term"
)

// window is a terminal window in which a command runs. It understands the sequences that
// the command uses and ignores others; every character is one column wide.
// It is safe for concurrent use.
type window struct {
	terminal, commands *os.File // the two ends
	p                  *process
	before             term.State

	mu       sync.Mutex
	changed  chan struct{} // closed at the next change
	raw      strings.Builder
	rest     string // the beginning of an incomplete sequence or character
	rows     [][]rune
	main     [][]rune // while the other screen is shown
	x, y     int
	columns  int
	overruns []string // lines that did not fit
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
	win := &window{terminal: terminal, commands: commands, changed: make(chan struct{})}
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
	go func() {
		defer close(win.p.ended)
		_ = win.p.cmd.Wait() // exitCode tells
	}()
	t.Cleanup(func() {
		win.p.kill()
		_ = commands.Close() // both may be closed already
		_ = terminal.Close()
		reading.Wait()
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
	win.columns = columns
	for len(win.rows) < rows {
		win.rows = append(win.rows, nil)
	}
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
	lines := make([]string, len(win.rows))
	for i, row := range win.rows {
		lines[i] = strings.TrimRight(string(row), " ")
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n")
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

// fits reports lines that were too long for the window.
func (win *window) fits(t *testing.T) {
	t.Helper()
	win.mu.Lock()
	defer win.mu.Unlock()
	if len(win.overruns) > 0 {
		t.Errorf("lines are longer than the window is wide: %q", win.overruns)
	}
}

func (win *window) read() {
	buf := make([]byte, 4096)
	for {
		n, err := win.terminal.Read(buf)
		win.mu.Lock()
		win.raw.Write(buf[:n])
		win.show(win.rest + string(buf[:n]))
		close(win.changed)
		win.changed = make(chan struct{})
		win.mu.Unlock()
		if err != nil {
			return // the command has ended, or the window is closed
		}
	}
}

// show obeys text.
func (win *window) show(text string) {
	for text != "" {
		switch c := text[0]; {
		case c == '\x1b':
			n := escapeLength(text)
			if n == 0 {
				win.rest = text
				return
			}
			win.obey(text[:n])
			text = text[n:]
		case c == '\r':
			win.x, text = 0, text[1:]
		case c == '\n':
			win.x, text = 0, text[1:] // the terminal adds a \r, or one was there
			if win.y++; win.y >= len(win.rows) {
				win.rows, win.y = append(win.rows[1:], nil), len(win.rows)-1
			}
		case !utf8.FullRuneInString(text):
			win.rest = text
			return
		default:
			r, size := utf8.DecodeRuneInString(text)
			win.put(r)
			text = text[size:]
		}
	}
	win.rest = ""
}

// escapeLength returns the length of the sequence that s begins with, 0 if it
// is not there in full.
func escapeLength(s string) int {
	for i := 2; i < len(s); i++ {
		if s[i] >= 0x40 && s[i] <= 0x7e {
			return i + 1
		}
	}
	return 0
}

func (win *window) obey(sequence string) {
	switch sequence {
	case "\x1b[?1049h":
		win.main, win.rows = win.rows, make([][]rune, len(win.rows))
	case "\x1b[?1049l":
		win.rows, win.x, win.y = win.main, 0, 0
	case "\x1b[H":
		win.x, win.y = 0, 0
	case "\x1b[K":
		win.rows[win.y] = win.rows[win.y][:min(win.x, len(win.rows[win.y]))]
	case "\x1b[J":
		win.obey("\x1b[K")
		clear(win.rows[win.y+1:])
	}
}

func (win *window) put(r rune) {
	row := win.rows[win.y]
	if win.x >= win.columns {
		win.overruns = append(win.overruns, string(row)+" before "+strconv.QuoteRune(r))
	}
	for len(row) <= win.x {
		row = append(row, ' ')
	}
	row[win.x] = r
	win.rows[win.y] = row
	win.x++
}
