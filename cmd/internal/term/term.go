// Package term is the terminal that a command may run on, and text that others
// chose made harmless for it.
package term

import (
	"io"
	"os"

	"github.com/muesli/termenv"
	"golang.org/x/term"

	"github.com/request-migration/migrate/cmd/internal/outlet"
)

// Of returns the terminal that v, a reader or a writer, is; nil if it is none.
func Of(v any) *os.File {
	if f := outlet.FileOf(v); f != nil && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

// Width returns how many columns w has; 0 is any number of them.
func Width(w io.Writer) int {
	f := Of(w)
	if f == nil {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0 // it can't tell
	}
	return width
}

// ColorProfile says which colours w shows: none unless it is a terminal and NO_COLOR
// is not set. The terminal itself is not asked, since its answer would arrive on the
// command's input. CLICOLOR_FORCE is not obeyed: a log in a file stays plain.
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
