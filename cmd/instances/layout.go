package instances

import (
	"slices"
	"strings"

	"github.com/charmbracelet/lipgloss"
	"github.com/charmbracelet/x/ansi"
)

// columnGap is how many spaces stand between columns.
const columnGap = 2

// leastNote is how much of a note is there even if a column has to go for it.
const leastNote = 6

// table is columns of text, to be laid out in the width that there is.
// [github.com/charmbracelet/lipgloss/table] wraps or cuts every column alike
// where it lacks room; here some are worth more than others.
type table struct {
	columns []*column
	// notes are shown in place of the tail columns; "" is none.
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

	width int // as it is laid out
	least int // what it may be narrowed to
}

// squeeze is one step of making a table narrower.
type squeeze struct {
	column string
	least  int // 0 leaves the column out
}

// squeezes are the steps, the least loss first. What remains at last is who it
// is, whether requests go there, and if not, why and until when.
func squeezes() []squeeze {
	return []squeeze{
		{"REASON", 16}, {"BY", 10}, {"NAME", 24}, {"ADDRESS", 21}, {"BY", 0}, {"REASON", 0}, {"AGO", 0}, {"ADDRESS", 0},
		{"ID", 8}, {"NAME", 8}, {"SOURCE", 0}, {"PROBE", 6}, {"WHY", 6}, {"BACK", 0}, {"WHY", 0}, {"PROBE", 0}, {"ID", 0},
	}
}

// narrows are the columns in the order in which they give up room that they
// have beyond their least.
func narrows() []string { return []string{"REASON", "BY", "ADDRESS", "NAME", "WHY", "PROBE", "ID"} }

// lines lays the table out in at most width columns, 0 being any number.
func (t *table) lines(width int) []string {
	columns := t.fit(width)
	lines := make([]string, 0, t.rows+1)
	var b strings.Builder
	flush := func() {
		// Cut for windows that are narrower than anything can be made.
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

// fit chooses the columns that are shown, and their widths.
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
			// Not there, or no help: it is a note that lacks room.
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

// beforeNote returns what a width of c takes from a row with a note.
func (c *column) beforeNote(width int) int {
	if c.tail {
		return -columnGap // makes up for the gap that sum adds
	}
	return width
}

// sum returns the width of columns and the gap after each.
func sum(columns []*column, of func(*column) int) int {
	n := 0
	for _, c := range columns {
		n += of(c) + columnGap
	}
	return n
}

// clip shortens plain text to width columns and shows that it did; 0 is any
// width.
func clip(s string, width int) string { return ansi.Truncate(s, limit(width), "…") }

// limit is width, with a number that no text reaches for any width.
func limit(width int) int {
	if width == 0 {
		return 1 << 30
	}
	return width
}
