package term

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Plain returns a text from others in a form that is harmless on a terminal and stays on
// one line. Control characters, marks that change the direction of text and line
// separators become escapes such as \x1b; bytes that are not UTF-8 become U+FFFD.
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

// OneLine is Plain for the message of an error, which has several lines if errors were
// joined: it separates them by semicolons.
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
