package file

import (
	"strings"
	"testing"
)

func TestFileName(t *testing.T) {
	for rest, want := range map[string]string{
		"dynamo/backend/generate/17216e63492ef21f": "dynamo%2Fbackend%2Fgenerate%2F17216e63492ef21f", // Dynamo's own example
		"a":        "a",
		"a b.c_d-": "a%20b%2Ec%5Fd%2D",
		"%2F":      "%252F",
		"é":        "%C3%A9",
		"..a":      "%2E%2Ea",
	} {
		got := fileName(rest)
		if got != want {
			t.Errorf("fileName(%q) = %q, want %q", rest, got, want)
		}
		if key, ok := keyOf(bucketName, got); !ok || key != bucketName+"/"+rest {
			t.Errorf("keyOf(%q) = %q, %v, want %q", got, key, ok, bucketName+"/"+rest)
		}
	}
	if name := fileName(strings.Repeat("x", 255)); len(name) != 255 || hashed(name) {
		t.Errorf("255 bytes: %s", name)
	}
	if name := fileName(strings.Repeat("x", 253) + "/"); len(name) > 255 || !hashed(name) {
		t.Errorf("256 bytes: %s", name)
	}
}

func TestForeignNames(t *testing.T) {
	for _, name := range []string{
		"", ".", "..", "a.json", "a%2Fb.bak", ".tmp_x", ".hidden", "a b", "a-b", "a_b", "é", "a/b",
		"a%2F..%2F..%2Fetc", "%2E%2E%2Fetc", "a%2F%2E%2E%2Fb", "%2Fa", "a%2F", "a%2F%2Fb", "%2E", // no key
		"a%2fb", "%61", "%4", "%", "a%", "%GG", "%2", "%%", "a%2Fb%", // not canonical
		"a%00b", "a%0Ab", "a%FFb", // no key either
		strings.Repeat("x", 256),
	} {
		if key, ok := keyOf(bucketName, name); ok {
			t.Errorf("keyOf(%q) = %q", name, key)
		}
	}
}

func FuzzKeyOf(f *testing.F) {
	for _, name := range []string{"a%2Fb", "a%2F..%2Fb", "%", "%2", "%41", "%C3%A9", "..", ".tmp_1"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		key, ok := keyOf(bucketName, name)
		if !ok {
			return
		}
		rest, ours := strings.CutPrefix(key, bucketName+"/")
		if again := fileName(rest); !ours || again != name {
			t.Errorf("keyOf(%q) = %q, whose file is %q", name, key, again)
		}
	})
}
