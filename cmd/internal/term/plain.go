package term

import (
	"strings"

	"github.com/request-migration/migrate/cmd/internal/rustdebug"
)

// Plain shows a text that others chose without what would move the cursor or
// end the row.
func Plain(s string) string {
	quoted := rustdebug.Quote(s)
	if quoted = quoted[1 : len(quoted)-1]; quoted != s {
		return quoted
	}
	return s
}

// OneLine keeps a message from looking like several. Errors that were joined, each
// on a line of its own, stay apart.
func OneLine(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		line = strings.TrimSpace(strings.Map(func(r rune) rune {
			if r < ' ' {
				return ' '
			}
			return r
		}, line))
		switch {
		case line == "":
			continue
		case strings.HasSuffix(b.String(), ":"):
			b.WriteString(" ")
		case b.Len() > 0:
			b.WriteString("; ")
		}
		b.WriteString(line)
	}
	return b.String()
}
