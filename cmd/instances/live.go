package instances

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/muesli/cancelreader"
	"github.com/spf13/cobra"
	xterm "golang.org/x/term"

	"github.com/request-migration/migrate/cmd/internal/cli"
	"github.com/request-migration/migrate/cmd/internal/outlet"
	"github.com/request-migration/migrate/cmd/internal/term"
)

// canRedraw reports whether w is a terminal that a live table can be drawn on.
func canRedraw(w io.Writer) bool {
	return term.Of(w) != nil && os.Getenv("TERM") != "dumb"
}

// redraw is the interval between updates of the times in the table: short enough that a
// countdown skips no second.
const redraw = 250 * time.Millisecond

// watchLive keeps a table on the terminal out, and redraws it whenever it has changed. It
// ends without an error at a q on in, and with the cause of ctx when that ends. The last
// table stays on the terminal.
//
// It does not use Bubble Tea, whose first version asks the terminal for its colours before
// main begins, in every command that it is linked into: that would appear in the output of
// a request, and take keys from its input.
func watchLive(ctx context.Context, f *feed, in io.Reader, out io.Writer) (err error) {
	s := screen{out: out, terminal: term.Of(out), colours: newPalette(out)}
	keys, release, err := readKeys(in)
	if err != nil {
		return fmt.Errorf("reading keys: %w", err)
	}
	defer release()
	if err := s.open(ctx); err != nil {
		return fmt.Errorf("drawing the table: %w", err)
	}
	resized, unsubscribe := notifyResize()
	defer unsubscribe()
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	defer func() {
		if closeErr := s.close(ctx); err == nil && closeErr != nil {
			err = fmt.Errorf("drawing the table: %w", closeErr)
		}
	}()
	for {
		view, ok, err := f.view(time.Now())
		if err != nil {
			return err
		}
		if err := s.draw(ctx, view, ok, f.endpoint.String(), time.Now()); err != nil {
			return fmt.Errorf("drawing the table: %w", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case key := <-keys:
			switch key {
			case 'q', 'Q':
				return nil
			case ctrlC:
				return cli.ErrInterrupted
			}
		case <-f.changed:
		case <-resized:
			s.frame = "" // the terminal may have moved what it showed
		case <-tick.C:
		}
	}
}

// ctrlC is what the key sends to a terminal in raw mode, where it makes no signal.
const ctrlC = 3

// screen is the terminal that the live table is drawn on.
type screen struct {
	out      io.Writer
	terminal *os.File // the same, for its size
	colours  palette
	last     *instancesView
	frame    string // what it shows
}

// The alternate screen, on which a resized window leaves nothing behind; no cursor; and
// no wrapping, so that lines are cut until the next frame fits.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
)

func (s *screen) open(ctx context.Context) error {
	return outlet.Write(ctx, s.out, []byte(enterScreen))
}

// close gives the terminal back, with the last table on it.
func (s *screen) close(ctx context.Context) error {
	text := leaveScreen
	if s.last != nil {
		lines := s.last.tableLines(s.colours, term.Width(s.terminal), time.Now())
		text += strings.Join(lines, "\r\n") + "\r\n"
	}
	return outlet.Write(ctx, s.out, []byte(text))
}

// draw draws a frame over the last one, in one write, if they differ.
func (s *screen) draw(ctx context.Context, v instancesView, ok bool, endpoint string, now time.Time) error {
	width, height, err := xterm.GetSize(int(s.terminal.Fd()))
	if err != nil {
		return err
	}
	if width <= 0 || height <= 0 {
		width, height = 80, 24 // unknown, as on a serial line
	}
	lines := []string{clip("looking for instances of "+endpoint, width)}
	if ok {
		s.last = &v
		lines = v.frame(s.colours, width, height, now)
	}
	text := "\x1b[H" + strings.Join(lines, "\x1b[K\r\n") + "\x1b[K\x1b[J"
	if text == s.frame {
		return nil
	}
	s.frame = text
	return outlet.Write(ctx, s.out, []byte(text))
}

// frame returns what the live table shows in a window of that size.
func (v instancesView) frame(p palette, width, height int, now time.Time) []string {
	down := 0
	for _, r := range v.Rows {
		if r.Down != nil {
			down++
		}
	}
	top := []string{
		clip(fmt.Sprintf("%d in source, %d avail, %d down, of %s", len(v.Source), len(v.Avail), down, v.Endpoint), width), "",
	}
	bottom := []string{"", paint(p.faint, clip("q leaves", width))}
	if v.Stale != "" {
		bottom = []string{"", paint(p.soon, clip("stale: "+term.Plain(v.Stale), width)), bottom[1]}
	}
	// In a low window the rows matter most.
	const low = 12
	lacks := func() bool { return height < low && height < len(top)+1+len(v.Rows)+len(bottom) }
	if lacks() {
		bottom = bottom[:len(bottom)-1]
	}
	if lacks() {
		top = nil
	}
	if lacks() {
		bottom = nil
	}
	room := max(height-len(top)-len(bottom)-1, 0)
	rows, more := v.Rows, 0
	if len(rows) > room {
		shown := max(room-1, 0) // and a line with the number of the others
		more = len(rows) - shown
		rows = needLooking(rows)[:shown]
	}
	lines := slices.Concat(top, newTable(rows, p, now).lines(width))
	if nobody := v.nobody(); nobody != "" {
		lines = append(lines, paint(p.faint, clip(term.Plain(nobody), width)))
	}
	if more > 0 {
		lines = append(lines, paint(p.faint, clip(fmt.Sprintf("… and %d more", more), width)))
	}
	return slices.Concat(lines, bottom)[:min(height, len(lines)+len(bottom))]
}

// needLooking returns rows with the unavailable instances first, for a window without room
// for all.
func needLooking(rows []instanceRow) []instanceRow {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b instanceRow) int {
		switch {
		case a.Avail == b.Avail:
			return 0
		case b.Avail:
			return -1
		}
		return 1
	})
	return rows
}

// readKeys reads single keys from in if it is a terminal; keys is nil otherwise. release
// ends the reading and restores the terminal.
func readKeys(in io.Reader) (keys <-chan byte, release func(), err error) {
	terminal := term.Of(in)
	if terminal == nil {
		return nil, func() {}, nil
	}
	reader, err := cancelreader.NewReader(terminal)
	if err != nil {
		return nil, nil, err
	}
	before, err := xterm.MakeRaw(int(terminal.Fd()))
	if err != nil {
		_ = reader.Close() // useless without raw mode
		return nil, nil, err
	}
	typed, done := make(chan byte), make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		buf := make([]byte, 64)
		for {
			n, err := reader.Read(buf)
			if err != nil {
				return // cancelled, or the terminal is gone, which drawing reports
			}
			for _, key := range buf[:n] {
				select {
				case typed <- key:
				case <-done:
					return
				}
			}
		}
	})
	return typed, func() {
		close(done)
		if reader.Cancel() { // otherwise it would wait for a key
			reading.Wait()
		}
		restore(terminal, before)
		_ = reader.Close() // does not close the terminal
	}, nil
}

// restore restores a terminal. If that fails the terminal is gone.
func restore(terminal *os.File, before *xterm.State) {
	_ = xterm.Restore(int(terminal.Fd()), before)
}

// maxHeldLog is how many bytes of the log are held.
const maxHeldLog = 64 << 10

// holdLog holds back what cmd logs to a terminal while the live table is drawn on it.
// release prints it.
func holdLog(cmd *cobra.Command) (release func()) {
	stderr := cmd.ErrOrStderr()
	if term.Of(stderr) == nil {
		return func() {}
	}
	var held heldLog
	cmd.SetErr(&held)
	return func() {
		cmd.SetErr(stderr)
		held.mu.Lock()
		defer held.mu.Unlock()
		_, _ = stderr.Write(held.text) // there is nowhere to report a failure to
	}
}

// heldLog holds the last of what is written to it. It is safe for concurrent use.
type heldLog struct {
	mu   sync.Mutex
	text []byte
}

// Write implements [io.Writer].
func (h *heldLog) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text = append(h.text, p...)
	if extra := len(h.text) - maxHeldLog; extra > 0 {
		h.text = append(h.text[:0], h.text[extra:]...)
	}
	return len(p), nil
}
