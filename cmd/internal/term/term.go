// Package term looks at the terminal that a command runs on, and makes text from others
// harmless for it.
package term

import (
	"io"
	"os"

	"github.com/muesli/termenv"
	"golang.org/x/term"

	"github.com/request-migration/migrate/cmd/internal/outlet"
)

// Of returns the terminal that v, a reader or a writer, stands for, or nil.
func Of(v any) *os.File {
	if f := outlet.FileOf(v); f != nil && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

// Width returns the number of columns of w, or 0 if w is not a terminal.
func Width(w io.Writer) int {
	f := Of(w)
	if f == nil {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0 // unknown
	}
	return width
}

// HasColours reports whether w shows colours, see [ColorProfile].
func HasColours(w io.Writer) bool { return ColorProfile(w) != termenv.Ascii }

// ColorProfile returns the colours that w shows: none unless it is a terminal and NO_COLOR
// is not set. It does not ask the terminal, whose answer would arrive on the command's
// input. It ignores CLICOLOR_FORCE: a log in a file stays plain.
func ColorProfile(w io.Writer) termenv.Profile {
	if f := outlet.FileOf(w); f != nil {
		w = f
	}
	out := termenv.NewOutput(w)
	if out.EnvNoColor() {
		return termenv.Ascii
	}
	return out.ColorProfile()
}
