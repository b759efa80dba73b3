package instances

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	xterm "golang.org/x/term"

	"github.com/request-migration/migrate/cmd/internal/cli"
	"github.com/request-migration/migrate/cmd/internal/outlet"
	"github.com/request-migration/migrate/cmd/internal/term"
)

// canRedraw reports whether w is a terminal that a live table can be drawn on.
func canRedraw(w io.Writer) bool {
	return term.Of(w) != nil && os.Getenv("TERM") != "dumb"
}

// redraw is how often the times in the table are looked at: often enough that a
// countdown skips no second.
const redraw = 250 * time.Millisecond

// watchLive keeps a table on the terminal out, redrawn whenever it has changed,
// until a q on in, which is no error, or the end of ctx. The last table
// stays behind.
//
// It draws by itself. Bubble Tea's first version asks the terminal for its
// colours before main begins, in every command that it is linked into: that
// would stand in the output of a request, and take keys from its input.
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

// ctrlC is what the key sends while keys are read one by one.
const ctrlC = 3

// screen is the terminal while the live table has it.
type screen struct {
	out      io.Writer
	terminal *os.File // the same, for its size
	colours  palette
	last     *instancesView
	frame    string // what it shows
}

// The other screen, on which a window's change of size leaves nothing behind;
// no cursor; and lines that are cut, not wrapped, until the next frame fits.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
)

func (s *screen) open(ctx context.Context) error {
	return outlet.Write(ctx, s.out, []byte(enterScreen))
}

// close gives the terminal back, and leaves what was seen last on it.
func (s *screen) close(ctx context.Context) error {
	text := leaveScreen
	if s.last != nil {
		lines := s.last.tableLines(s.colours, term.Width(s.terminal), time.Now())
		text += strings.Join(lines, "\r\n") + "\r\n"
	}
	return outlet.Write(ctx, s.out, []byte(text))
}

// draw draws a frame over the last one, in one write, if it is another.
func (s *screen) draw(ctx context.Context, v instancesView, ok bool, endpoint string, now time.Time) error {
	width, height, err := xterm.GetSize(int(s.terminal.Fd()))
	if err != nil {
		return err
	}
	if width <= 0 || height <= 0 {
		width, height = 80, 24 // it doesn't know, as a serial line
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
