package rustdebug

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestRustDebug(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in, want string
	}{
		{"empty", "", `""`},
		{"plain", "hello world", `"hello world"`},
		{"item", "from server: server1, data: h", `"from server: server1, data: h"`},
		{"double quotes", `a "b"`, `"a \"b\""`},
		{"single quotes stay", "it's", `"it's"`},
		{"backslash", `C:\x`, `"C:\\x"`},
		{"short escapes", "\t\n\r\x00", `"\t\n\r\0"`},
		{"NUL before a digit", "\x001", `"\01"`},
		{"no short escape", "\a\b\v\f\x1b\x7f", `"\u{7}\u{8}\u{b}\u{c}\u{1b}\u{7f}"`},
		{"Latin", "é", `"é"`},
		{"C1 controls and spaces", "\u0085\u00a0\u2028\u3000", `"\u{85}\u{a0}\u{2028}\u{3000}"`},
		{"soft hyphen, byte order mark", "\u00ad\ufeff", `"\u{ad}\u{feff}"`},
		{"combining mark at the front", "\u0301e", `"\u{301}e"`},
		{"combining mark after its base", "e\u0301", `"e\u{301}"`},
		{"emoji joined by ZWJ", "👩\u200d👧", `"👩\u{200d}👧"`},
		{"emoji with a variation selector", "❤\ufe0f", `"❤\u{fe0f}"`},
		{"flag", "🇩🇪", `"🇩🇪"`},
		{"private use", "\ue000\U0010fffd", `"\u{e000}\u{10fffd}"`},
		{"last code point", "\U0010ffff", `"\u{10ffff}"`},
		{"new in Unicode 16", "\u1c89", `"` + "\u1c89" + `"`},
		{"replacement character", "\ufffd", `"` + "\ufffd" + `"`},
		{"invalid UTF-8", "a\xff\xc3b", `"a` + "\ufffd\ufffd" + `b"`},
		{"all kinds mixed", "a\"\u0301\xffb\\\u00e9\n", `"a\"\u{301}` + "\ufffd" + `b\\é\n"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := Quote(tt.in); got != tt.want {
				t.Errorf("rustDebug(%+q)\n got %s\nwant %s", tt.in, got, tt.want)
			}
		})
	}
}

func TestAppendRustDebugKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	if got, want := string(Append([]byte("Some("), "\n")), `Some("\n"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestRustDebugEveryCodePoint compares with hashes of what Rust 1.95.0 itself
// printed, which `rustc -O x.rs && ./x | sha256sum` makes from these bodies of
// main; c is each code point from U+0000 to U+10FFFF that is no surrogate:
//
//	for c in (0..=0x10ffff).filter_map(char::from_u32) { println!("{:?}", c.to_string()); }
//	for c in … { println!("{:?}", format!("a{c}{c}b\u{301}{c}\"'{c}\n")); }
//
// The second shows that no character's output depends on its neighbours.
func TestRustDebugEveryCodePoint(t *testing.T) {
	t.Parallel()
	alone, among := sha256.New(), sha256.New()
	var buf []byte
	writeLine := func(h hash.Hash, s string) {
		buf = append(Append(buf[:0], s), '\n')
		h.Write(buf) // never fails, says hash.Hash
	}
	for r := rune(0); r <= utf8.MaxRune; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		c := string(r)
		writeLine(alone, c)
		writeLine(among, "a"+c+c+"b\u0301"+c+`"'`+c+"\n")
	}
	for _, tt := range []struct {
		name string
		h    hash.Hash
		want string
	}{
		{"alone", alone, "1c62555c93d63747f1d39bbc077bd81afbdf1fdafcba54d4a0b2c26d86b83b3d"},
		{"among others", among, "ebf5f000bf8c39123ae5a9fc472ba3a2e21a0c6bbcdaf38f1f8fc4449c6ff1fa"},
	} {
		if got := hex.EncodeToString(tt.h.Sum(nil)); got != tt.want {
			t.Errorf("%s: the hash is %s, Rust's is %s", tt.name, got, tt.want)
		}
	}
}

func BenchmarkRustDebug(b *testing.B) {
	for _, bm := range []struct{ name, s string }{
		{"item", "from server: server1, data: h"},
		{"ascii4KiB", strings.Repeat("plain ASCII text", 256)},
		{"mixed4KiB", strings.Repeat("naïve \"日本\" e\u0301\n", 200)},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(bm.s)))
			var buf []byte
			for b.Loop() {
				buf = Append(buf[:0], bm.s)
			}
		})
	}
}
