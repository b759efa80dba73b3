package term

import "testing"

// TestPlain shows text that others chose; OneLine agrees where it is one line.
func TestPlain(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                          "",
		`say "hi" to C:\ 'é' 很 👍`:   `say "hi" to C:\ 'é' 很 👍`,
		"e\u0301, no-break\u00a0:":  "e\u0301, no-break\u00a0:",
		"\x1b[2J\x1b]0;title\a":     `\x1b[2J\x1b]0;title\a`,
		"a\tb\x00\x7f":              `a\tb\x00\x7f`,
		"C1 \u009b2J \u0085!":       `C1 \u009b2J \u0085!`,
		"invoice\u202efdp.exe":      `invoice\u202efdp.exe`,
		"lines\u2028and\u2029parts": `lines\u2028and\u2029parts`,
		"no UTF-8: \x9b\xff":        "no UTF-8: \ufffd\ufffd",
	} {
		if got := Plain(in); got != want {
			t.Errorf("Plain(%q) is %q, want %q", in, got, want)
		}
		if got := OneLine(in); got != want {
			t.Errorf("OneLine(%q) is %q, want %q", in, got, want)
		}
	}
	if got, want := Plain("ev\r\nil"), `ev\r\nil`; got != want {
		t.Errorf("two lines are %q, want %q", got, want)
	}
}

// TestOneLine keeps errors that were joined apart.
func TestOneLine(t *testing.T) {
	t.Parallel()
	const joined = "attempts used up:\nfirst\r\n\tsecond\x1b[2J\n\n" // as errors.Join does
	if got, want := OneLine(joined), `attempts used up: first; second\x1b[2J`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
