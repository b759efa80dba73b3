package term

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Plain makes a text that others chose harmless. What a terminal could obey (control
// characters, marks that change the direction of text) and what could look like
// another line is shown as an escape, such as \x1b; bytes that are not UTF-8 as U+FFFD.
func Plain(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, isHarmful) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if isHarmful(r) {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func isHarmful(r rune) bool { return !unicode.IsGraphic(r) }

// OneLine is Plain for an error's message of several lines, such as that of errors
// which were joined: they stay apart on the one line.
func OneLine(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		line = Plain(strings.TrimSpace(line))
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
