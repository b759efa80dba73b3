package main

import (
	"fmt"
	"html"
	"regexp"
	"strings"
)

// The size of a character, and the space around all, in pixels. A viewer's font
// may be wider or narrower: each word is told how long it is.
const (
	charWidth  = 8.4
	lineHeight = 20
	margin     = 16
)

// styles are the colours of the command's table, on a dark window.
var styles = map[string]string{
	"1": `fill="#e6edf3" font-weight="bold"`, "2": `fill="#7d8590"`,
	"31": `fill="#ff7b72"`, "32": `fill="#3fb950"`, "33": `fill="#d29922"`,
}

var (
	colour = regexp.MustCompile("^\x1b\\[([0-9;]*)m")
	word   = regexp.MustCompile(`\S+( \S+)*`)
)

// draw returns a picture of a window in which a command was typed and has
// printed that.
func draw(typed, printed string) []byte {
	lines := append([]string{"$ " + typed}, strings.Split(strings.TrimRight(printed, "\r\n"), "\n")...)
	var text strings.Builder
	widest := 0
	for i, line := range lines {
		y := margin + (i+1)*lineHeight - 5
		widest = max(widest, drawLine(&text, strings.TrimRight(line, "\r"), y))
	}
	width, height := int(float64(widest)*charWidth)+2*margin, len(lines)*lineHeight+2*margin
	return fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14">
<title>%s</title>
<rect width="100%%" height="100%%" rx="8" fill="#0d1117"/>
%s</svg>
`, width, height, width, height, html.EscapeString("$ "+typed), text.String())
}

// drawLine draws a line with its colours and returns how many columns it has.
func drawLine(b *strings.Builder, line string, y int) int {
	style, x := "", 0
	for line != "" {
		if m := colour.FindStringSubmatch(line); m != nil {
			style, line = m[1], line[len(m[0]):]
			continue
		}
		run := line
		if i := strings.IndexByte(line, '\x1b'); i > 0 {
			run = line[:i]
		}
		line = line[len(run):]
		for _, at := range word.FindAllStringIndex(run, -1) {
			attributes := styles[style]
			if attributes == "" {
				attributes = `fill="#c9d1d9"`
			}
			column, shown := x+len([]rune(run[:at[0]])), run[at[0]:at[1]]
			fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%d\" textLength=\"%.1f\" %s>%s</text>\n",
				margin+float64(column)*charWidth, y, float64(len([]rune(shown)))*charWidth, attributes, html.EscapeString(shown))
		}
		x += len([]rune(run))
	}
	return x
}
