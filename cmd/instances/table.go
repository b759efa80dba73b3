package instances

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/request-migration/migrate/cmd/internal/term"
	"github.com/request-migration/migrate/pkg/discovery"
)

// tableLines returns the table of v, and below it whether it is stale, in lines of at most
// width columns; 0 is no limit.
func (v instancesView) tableLines(p palette, width int, now time.Time) []string {
	lines := newTable(v.Rows, p, now).lines(width)
	if v.Stale != "" {
		lines = append(lines, paint(p.soon, clip("stale: "+term.Plain(v.Stale), width)))
	}
	return lines
}

// newTable returns the table of rows. A column that only some instances have a value for is
// left out if none has.
func newTable(rows []instanceRow, p palette, now time.Time) *table {
	t := &table{head: p.head, notes: make([]string, len(rows)), noteStyle: p.faint, rows: len(rows)}
	add := func(name string, cell func(r *instanceRow) (string, *lipgloss.Style)) *column {
		c := &column{name: name, cells: make([]string, len(rows)), styles: make([]*lipgloss.Style, len(rows))}
		for i := range rows {
			c.cells[i], c.styles[i] = cell(&rows[i])
		}
		t.columns = append(t.columns, c)
		return c
	}
	text := func(get func(r *instanceRow) string) func(*instanceRow) (string, *lipgloss.Style) {
		return func(r *instanceRow) (string, *lipgloss.Style) { return get(r), nil }
	}
	yesNo := func(get func(r *instanceRow) bool) func(*instanceRow) (string, *lipgloss.Style) {
		return func(r *instanceRow) (string, *lipgloss.Style) {
			if get(r) {
				return "yes", p.good
			}
			return "no", p.bad
		}
	}
	add("ID", text(func(r *instanceRow) string { return r.ID.String() }))
	add("NAME", text(func(r *instanceRow) string { return term.Plain(r.Name) }))
	add("ADDRESS", text(func(r *instanceRow) string { return term.Plain(r.Address) }))
	add("SOURCE", yesNo(func(r *instanceRow) bool { return r.Source }))
	add("AVAIL", yesNo(func(r *instanceRow) bool { return r.Avail }))
	add("PROBE", func(r *instanceRow) (string, *lipgloss.Style) {
		switch {
		case r.Probe == nil:
			return "", nil
		case r.Probe.Kind != "":
			return string(r.Probe.Kind), p.bad
		}
		return fmt.Sprintf("%.1fms", *r.Probe.MS), p.good
	}).optional = true

	report := func(style *lipgloss.Style, get func(d *reportRow) string) func(*instanceRow) (string, *lipgloss.Style) {
		return func(r *instanceRow) (string, *lipgloss.Style) {
			d := r.report()
			if d == nil {
				return "", nil
			}
			return get(d), style
		}
	}
	for _, c := range []*column{
		add("WHY", report(p.bad, func(d *reportRow) string { return term.Plain(d.Kind) })),
		add("AGO", report(nil, func(d *reportRow) string { return ago(now.Sub(d.Since)) })),
		add("BACK", report(p.soon, func(d *reportRow) string { return back(d.Until.Sub(now)) })),
		add("BY", report(nil, func(d *reportRow) string { return term.Plain(d.Reporter) })),
		add("REASON", report(nil, func(d *reportRow) string { return term.Plain(d.Reason) })),
	} {
		c.optional, c.tail = true, true
	}
	for i, r := range rows {
		if r.Source && r.report() == nil {
			t.notes[i] = r.note()
		}
	}
	return t
}

// note says why requests are not sent to an instance that nobody has reported, or returns
// "" if they are.
func (r *instanceRow) note() string {
	switch {
	case r.Transport != discovery.NDJSON:
		return "transport " + term.Plain(r.Transport) + ": listed, not routed to"
	case r.Wire > discovery.WireVersion:
		return fmt.Sprintf("wire %d, newer than this migrate's %d: listed, not routed to", r.Wire, discovery.WireVersion)
	}
	return ""
}

// ago formats a time that has passed.
func ago(d time.Duration) string { return short(max(d, 0).Truncate(time.Second)) }

// back formats a time to come. It rounds up, so that the countdown says "now" only at the
// moment itself.
func back(d time.Duration) string {
	if d <= 0 {
		return "now"
	}
	return "in " + short((d + time.Second - 1).Truncate(time.Second))
}

// short formats whole seconds in about four characters.
func short(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// columnGap is the number of spaces between columns.
const columnGap = 2

// leastNote is how many columns of a note are shown even if a column has to go for them.
const leastNote = 6

// table lays columns of text out in the available width. Unlike
// [charm.land/lipgloss/v2/table], which wraps or cuts all columns alike if room
// is short, it narrows and leaves out the least important ones first.
type table struct {
	columns []*column
	// notes replace the tail columns of their rows, unless they are "".
	notes     []string
	noteStyle *lipgloss.Style
	head      *lipgloss.Style
	rows      int
}

// column is one column; its cells have no control characters.
type column struct {
	name     string
	cells    []string
	styles   []*lipgloss.Style
	optional bool // left out if all cells are empty
	tail     bool // left out of rows with a note

	width int // in the layout
	least int // the width that it may be narrowed to
}

// squeeze is one step of making a table narrower.
type squeeze struct {
	column string
	least  int // 0 leaves the column out
}

// squeezes returns the steps, the least loss first. What remains at the end is the
// instance's name, whether it is available, and, if there is room, why it is not.
func squeezes() []squeeze {
	return []squeeze{
		{"REASON", 16}, {"BY", 10}, {"NAME", 24}, {"ADDRESS", 21}, {"BY", 0}, {"REASON", 0}, {"AGO", 0}, {"ADDRESS", 0},
		{"ID", 8}, {"NAME", 8}, {"SOURCE", 0}, {"PROBE", 6}, {"WHY", 6}, {"BACK", 0}, {"WHY", 0}, {"PROBE", 0}, {"ID", 0},
	}
}

// narrows returns the columns in the order in which they shrink to their least width.
func narrows() []string { return []string{"REASON", "BY", "ADDRESS", "NAME", "WHY", "PROBE", "ID"} }

// lines lays the table out in at most width columns; 0 is no limit.
func (t *table) lines(width int) []string {
	columns := t.fit(width)
	lines := make([]string, 0, t.rows+1)
	var b strings.Builder
	flush := func() {
		// Cut for windows that are narrower than the narrowest layout.
		lines = append(lines, ansi.Truncate(strings.TrimRight(b.String(), " "), limit(width), "…"))
		b.Reset()
	}
	for _, c := range columns {
		c.write(&b, c.name, t.head)
	}
	flush()
	room := limit(width) - sum(columns, func(c *column) int { return c.beforeNote(c.width) })
	for row, note := range t.notes {
		for _, c := range columns {
			if note == "" || !c.tail {
				c.write(&b, c.cells[row], c.styles[row])
			}
		}
		if note != "" {
			b.WriteString(paint(t.noteStyle, clip(note, max(room, 1))))
		}
		flush()
	}
	return lines
}

// write writes a cell and the gap after it.
func (c *column) write(b *strings.Builder, text string, style *lipgloss.Style) {
	text = clip(text, c.width)
	b.WriteString(paint(style, text))
	for range c.width - ansi.StringWidth(text) + columnGap {
		b.WriteByte(' ')
	}
}

// fit chooses the columns to show, and their widths.
func (t *table) fit(width int) []*column {
	var columns []*column
	for _, c := range t.columns {
		c.width = 0
		for _, cell := range c.cells {
			c.width = max(c.width, ansi.StringWidth(cell))
		}
		if c.width == 0 && c.optional {
			continue
		}
		c.width = max(c.width, len(c.name))
		c.least = c.width
		columns = append(columns, c)
	}
	note := 0
	for _, n := range t.notes {
		note = max(note, min(ansi.StringWidth(n), leastNote))
	}
	needs := func(of func(*column) int) int {
		return max(sum(columns, of)-columnGap, note+sum(columns, func(c *column) int { return c.beforeNote(of(c)) }))
	}
	for _, s := range squeezes() {
		if needs(leastOf) <= limit(width) {
			break
		}
		i := slices.IndexFunc(columns, func(c *column) bool { return c.name == s.column })
		switch {
		case i < 0 || columns[i].tail && sum(columns, leastOf)-columnGap <= limit(width):
			// Absent, or no help: a note is what lacks room.
		case s.least == 0:
			columns = slices.Delete(columns, i, i+1)
		default:
			columns[i].least = min(columns[i].least, s.least)
		}
	}
	for _, name := range narrows() {
		excess := needs(widthOf) - limit(width)
		i := slices.IndexFunc(columns, func(c *column) bool { return c.name == name })
		if excess > 0 && i >= 0 {
			columns[i].width = max(columns[i].width-excess, columns[i].least)
		}
	}
	return columns
}

func widthOf(c *column) int { return c.width }
func leastOf(c *column) int { return c.least }

// beforeNote returns how much of a row with a note goes to c if c has that width.
func (c *column) beforeNote(width int) int {
	if c.tail {
		return -columnGap // cancels the gap that sum adds
	}
	return width
}

// sum returns the width of columns with a gap after each.
func sum(columns []*column, of func(*column) int) int {
	n := 0
	for _, c := range columns {
		n += of(c) + columnGap
	}
	return n
}

// clip cuts plain text to width columns, with an ellipsis; 0 is no limit.
func clip(s string, width int) string { return ansi.Truncate(s, limit(width), "…") }

// limit returns width, or for 0 a number that no text reaches.
func limit(width int) int {
	if width == 0 {
		return 1 << 30
	}
	return width
}

// palette holds the colours of the table. The zero value has none.
type palette struct {
	head, good, bad, soon, faint *lipgloss.Style
}

// newPalette returns the colours that w shows.
func newPalette(w io.Writer) palette {
	if !term.HasColours(w) {
		return palette{}
	}
	return colours()
}

// colours returns a palette of the first colours there are, which suit any background.
func colours() palette {
	style := func(s lipgloss.Style) *lipgloss.Style { return &s }
	return palette{
		head: style(lipgloss.NewStyle().Bold(true)), faint: style(lipgloss.NewStyle().Faint(true)),
		good: style(lipgloss.NewStyle().Foreground(lipgloss.Green)),
		bad:  style(lipgloss.NewStyle().Foreground(lipgloss.Red)),
		soon: style(lipgloss.NewStyle().Foreground(lipgloss.Yellow)),
	}
}

// paint colours s unless style is nil.
func paint(style *lipgloss.Style, s string) string {
	if style == nil || s == "" {
		return s
	}
	return style.Render(s)
}
