package instances

import (
	"io"

	"github.com/charmbracelet/lipgloss"
	"github.com/muesli/termenv"

	"github.com/request-migration/migrate/cmd/internal/term"
)

// palette is the colours of the table. Its zero value has none.
type palette struct {
	head, good, bad, soon, faint *lipgloss.Style
}

// newPalette returns the colours for what is written to w: none unless w is a
// terminal that has them and NO_COLOR is not set.
func newPalette(w io.Writer) palette { return paletteOf(term.ColorProfile(w)) }

// paletteOf returns the colours for a terminal of that kind.
func paletteOf(profile termenv.Profile) palette {
	if profile == termenv.Ascii {
		return palette{}
	}
	r := lipgloss.NewRenderer(io.Discard)
	r.SetColorProfile(profile)
	// Else it would ask the terminal, and wait for the answer on its input.
	r.SetHasDarkBackground(true)
	// The first sixteen colours, which fit whatever background there is.
	colour := func(code string) *lipgloss.Style {
		s := r.NewStyle().Foreground(lipgloss.Color(code))
		return &s
	}
	head, faint := r.NewStyle().Bold(true), r.NewStyle().Faint(true)
	return palette{head: &head, good: colour("2"), bad: colour("1"), soon: colour("3"), faint: &faint}
}

// paint colours s, or does not where style is nil.
func paint(style *lipgloss.Style, s string) string {
	if style == nil || s == "" {
		return s
	}
	return style.Render(s)
}
