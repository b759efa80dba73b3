package stream

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzString holds the shortcuts for strings against the full parser.
func FuzzString(f *testing.F) {
	for _, s := range []string{
		`""`, `"`, ``, `"a"`, `"12345678\n"`, `"\"\\\/\b\f\n\r\t"`, `"\u00e9\uD83D\udc4d"`, `"\ud800"`, `"\u12"`, `"\x"`, `"\"`, `"a\"`,
		`"12345678é\n很👍12345678"`, "\"\xff\"", "\"\n\"", `"a"b"`, `"1234567\u00e"`, `"1234567\u00eg"`, "\"\\\xe9\"", ` "a"`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var want string
		valid := utf8.Valid(data) && len(data) > 0 && data[0] == '"' && data[len(data)-1] == '"' && json.Unmarshal(data, &want) == nil
		if got := isString(data); got != valid {
			t.Fatalf("isString of %q is %v, want %v", data, got, valid)
		}
		if !valid {
			return
		}
		if got, ok := text(data); !ok || got != want {
			t.Errorf("the text of %q is %q, %v, want %q", data, got, ok, want)
		}
		if _, ok := unescape(data[1 : len(data)-1]); ok == strings.Contains(strings.ReplaceAll(string(data), `\\`, ""), `\u`) {
			t.Errorf("%q was unescaped: %v", data, ok)
		}
	})
}
