//go:build unix

package cmd_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestInput sends texts of every sort through two servers, one of which breaks
// the stream, and gets back exactly what was sent.
func TestInput(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, text string }{
		{"empty", ""},
		{"one character", "h"},
		{"two characters", "hi"},
		{"three characters", "hit"},
		{"emoji", "👩‍👩‍👧‍👦 🇩🇪 👍🏽 ❤\ufe0f"},
		{"combining marks", "e\u0301a\u0308\u0323 \u0301"},
		{"scripts", "שלום, こんにちは, สวัสดี, \U00010348"},
		{"quotes and backslashes", `"'` + "`" + ` \ \" \n \u0041 %s $HOME`},
		{"newlines", "one\ntwo\r\nthree\n\n"},
		{"only a newline", "\n"},
		{"controls", "\x00\x01\x1b[31m\x7f\u0085\u2028"},
		{"like an item", "from server: other, data: x, data: y"},
		{"like a line", `{"event":"end","id":"0"}`},
		{"like a flag", "--count=3"},
		{"replacement and last character", "\ufffd\U0010ffff"},
		{"100,000 characters", strings.Repeat("0é日👍\n", 20000)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			// The fault shows after two characters.
			breaks := utf8.RuneCountInString(tt.text) > 2
			spawn := []string{"--spawn", "a=always", "--spawn", "b=never", "--instance", "a"}
			request := func(flags ...string) string {
				args := append([]string{"migrate", "request"}, spawn...)
				var stdout string
				// No argument holds a NUL, nor more than 128 KiB.
				if strings.Contains(tt.text, "\x00") || len(tt.text) > 120<<10 {
					stdout, _ = w.run(t, 0, strings.NewReader(tt.text), append(append(args, flags...), "-")...)
				} else {
					stdout, _ = w.run(t, 0, nil, append(append(args, flags...), "--", tt.text)...)
				}
				return stdout
			}
			raw := tt.text
			if !strings.HasSuffix(raw, "\n") {
				raw += "\n"
			}
			for _, flags := range [][]string{{"--output", "raw"}, {"--output", "raw", "--resume"}} {
				if got := request(flags...); got != raw {
					t.Errorf("%v gives back %.200q", flags, got)
				}
			}
			stdout, _ := w.run(t, 0, strings.NewReader(tt.text), append([]string{"migrate", "request", "-", "--output", "raw"}, spawn...)...)
			if stdout != raw {
				t.Errorf("from standard input it gives back %.200q", stdout)
			}
			if got, want := request(), wantTranscript(tt.text, breaks); got != want {
				t.Errorf("the transcript is\n%.500s\nwant\n%.500s", got, want)
			}
			all, err := parseEvents(request("--output", "json"))
			if err != nil {
				t.Fatal(err)
			}
			if r := all[0].receipt(); r.Items != utf8.RuneCountInString(tt.text) || (len(r.Attempts) == 2) != breaks {
				t.Errorf("the receipt has %d items in %d attempts", r.Items, len(r.Attempts))
			}
		})
	}
}

// wantTranscript is what a request for text prints if the stream breaks, or if it does
// not.
func wantTranscript(text string, breaks bool) string {
	var b strings.Builder
	item := func(server string, r rune) {
		fmt.Fprintf(&b, "Annotated { data: Some(\"from server: %s, data: %s\"), id: None, event: None, comment: None }\n", server, debugRune(r))
	}
	b.WriteString("=== Attempt 1 ===\n")
	for i, r := range []rune(text) {
		if i < 2 || !breaks {
			item("a", r)
		}
	}
	if breaks {
		b.WriteString("Error: Stream ended before generation completed\nRetrying request...\n\n=== Attempt 2 ===\n")
		for _, r := range text {
			item("b", r)
		}
	}
	b.WriteString("\n=== Success! ===\n")
	return b.String()
}

// debugRune is how Rust's Debug writes the characters of TestInput.
func debugRune(r rune) string {
	switch r {
	case '"', '\\':
		return `\` + string(r)
	case '\n':
		return `\n`
	case '\r':
		return `\r`
	case 0:
		return `\0`
	case 0x01, 0x1b, 0x7f, 0x85, 0x2028, 0x200d, 0xfe0f, 0x0301, 0x0308, 0x0323, 0x0e31, 0x0e35, 0x10ffff:
		return fmt.Sprintf(`\u{%x}`, r)
	}
	return string(r)
}

// TestInputThatIsNone checks that texts which a request cannot carry are refused.
func TestInputThatIsNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tooLong := strings.Repeat("x", 1<<20)
	tests := []struct {
		name, arg, stdin, want string
	}{
		{"an argument that is no UTF-8", "a\xffb", "", "not UTF-8"},
		{"a surrogate", "\xed\xa0\x80", "", "not UTF-8"},
		{"standard input that is no UTF-8", "-", "a\xffb", "not UTF-8"},
		{"a cut character", "-", "\xf0\x9f\x91", "not UTF-8"},
		{"too much", "-", tooLong, "too long"},
		{"too much once it is quoted", "-", strings.Repeat("\x01", 1<<20/6), "too long"},
		{"far too much", "-", strings.Repeat(tooLong, 4), "too long"},
		{"too many characters of two bytes", "-", strings.Repeat("é", 1<<20), "too long"},
	}
	for _, tt := range tests {
		stdout, stderr := w.run(t, 2, strings.NewReader(tt.stdin), "migrate", "request", tt.arg, "--spawn", "a=never")
		if stdout != "" || !strings.Contains(stderr, tt.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: standard output %.200q, standard error %.200q; want one line of error with %q", tt.name, stdout, stderr, tt.want)
		}
	}
}
