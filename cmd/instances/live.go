package instances

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/spf13/cobra"

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
func watchLive(ctx context.Context, f *feed, in io.Reader, out io.Writer) error {
	style, profile := newPalette(out), colorprofile.ANSI
	if style == (palette{}) {
		profile = colorprofile.ASCII
	}
	m := live{feed: f, colours: style}
	options := []tea.ProgramOption{
		tea.WithContext(ctx), tea.WithoutSignalHandler(), tea.WithColorProfile(profile), tea.WithInput(nil),
		tea.WithOutput(screen{File: term.Of(out), ctx: ctx, out: out}),
	}
	if keys := term.Of(in); keys != nil {
		options = append(options, tea.WithInput(keys))
	}
	end, err := tea.NewProgram(m, options...).Run()
	if shown, ok := end.(live); ok {
		m = shown
	}
	if m.view != nil {
		lines := m.view.tableLines(style, term.Width(out), time.Now())
		err = cmp.Or(err, outlet.Write(ctx, out, []byte(strings.Join(lines, "\n")+"\n")))
	}
	switch {
	case m.end != nil:
		return m.end
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("drawing the table: %w", err)
	}
	return nil
}

// screen is the terminal that the live table is drawn on. Writing to it does not wait for
// a reader who is stuck once ctx has ended.
type screen struct {
	*os.File
	ctx context.Context //nolint:containedctx // an io.Writer has no room for one
	out io.Writer
}

// Write implements [io.Writer].
func (s screen) Write(p []byte) (int, error) {
	if err := outlet.Write(s.ctx, s.out, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// live is the model of the live table.
type live struct {
	feed          *feed
	colours       palette
	width, height int
	view          *instancesView // nil as long as there is none
	now           time.Time
	end           error // why it ends, if not at a q
}

// redrawn is the message that it is time for a new frame.
type redrawn time.Time

// Init implements [tea.Model].
func (m live) Init() tea.Cmd { return m.next }

// next waits until there is something new to draw.
func (m live) next() tea.Msg {
	select {
	case <-m.feed.changed:
		return redrawn(time.Now())
	case now := <-time.After(redraw):
		return redrawn(now)
	}
}

// Update implements [tea.Model].
func (m live) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "Q", "shift+q":
			return m, tea.Quit
		case "ctrl+c":
			m.end = cli.ErrInterrupted
			return m, tea.Quit
		}
	case redrawn:
		m.now = time.Time(msg)
		view, ok, err := m.feed.view(m.now)
		if err != nil {
			m.end = err
			return m, tea.Quit
		}
		if ok {
			m.view = &view
		}
		return m, m.next
	}
	return m, nil
}

// View implements [tea.Model]. It is drawn on the alternate screen, on which a resized
// window leaves nothing behind.
func (m live) View() tea.View {
	width, height := m.width, m.height
	if width <= 0 || height <= 0 {
		width, height = 80, 24 // unknown, as on a serial line
	}
	lines := []string{clip("looking for instances of "+m.feed.endpoint.String(), width)}
	if m.view != nil {
		lines = m.view.frame(m.colours, width, height, m.now)
	}
	v := tea.NewView(strings.Join(lines, "\n"))
	v.AltScreen = true
	return v
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
