//go:build unix

package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/request-migration/migrate/pkg/stream"
)

// itemsOf divides an output that is read in pieces of these sizes, the last of
// which repeats.
func itemsOf(t *testing.T, items Items, output string, sizes ...int) ([]string, error) {
	t.Helper()
	var got []string
	s := &sink{items: items, send: func(a stream.Annotated) error {
		if len(a.Data) > maxItem || !json.Valid(a.Data) || !utf8.Valid(a.Data) {
			t.Errorf("an item has %d bytes, or is not JSON: %.60q", len(a.Data), a.Data)
		}
		if text, ok := a.Text(); ok && items != JSON {
			got = append(got, text)
		} else {
			got = append(got, string(a.Data))
		}
		return nil
	}}
	var rest []byte
	for b, i := []byte(output), 0; len(b) > 0; i++ {
		n := min(sizes[min(i, len(sizes)-1)], len(b))
		read := append(bytes.Clone(rest), b[:n]...)
		b = b[n:]
		used, err := s.write(read)
		if err != nil {
			return got, err
		}
		rest = read[used:]
		if len(rest) >= utf8.UTFMax {
			t.Errorf("%d bytes are left over: %q", len(rest), rest)
		}
	}
	return got, s.finish(rest)
}

// TestDivided divides outputs, however they are read.
func TestDivided(t *testing.T) {
	t.Parallel()
	x := func(n int) string { return strings.Repeat("x", n) }
	for name, tt := range map[string]struct {
		items  Items
		output string
		want   []string
	}{
		"lines":                 {Lines, "a\n\nb\r\nc", []string{"a\n", "\n", "b\r\n", "c"}},
		"quoted":                {Lines, "\"\\\t\x00\x1f\x7f<>&\u2028\n", []string{"\"\\\t\x00\x1f\x7f<>&\u2028\n"}},
		"characters":            {Lines, "é很👍\n12345678é很👍", []string{"é很👍\n", "12345678é很👍"}},
		"not UTF-8":             {Lines, "a\xff\xfeb\xe2\x82\n\xe2\x82", []string{"a\ufffd\ufffdb\ufffd\ufffd\n", "\ufffd\ufffd"}},
		"surrogates":            {Lines, "\xed\xa0\x80\n", []string{"\ufffd\ufffd\ufffd\n"}},
		"a line that just fits": {Lines, x(maxItem-4) + "\nb\n", []string{x(maxItem-4) + "\n", "b\n"}},
		"one byte more":         {Lines, x(maxItem-3) + "\nb\n", []string{x(maxItem - 3), "\n", "b\n"}},
		"between characters":    {Lines, x(maxItem-3) + "é\n", []string{x(maxItem - 3), "é\n"}},
		"escaped, and long":     {Lines, strings.Repeat("\x01", maxItem/6+1) + "\n", []string{strings.Repeat("\x01", (maxItem-2)/6), strings.Repeat("\x01", maxItem/6+1-(maxItem-2)/6) + "\n"}},
		"JSON":                  {JSON, "{\"a\": [1, 2]}\n\n  \"x\"\r\n null\n12", []string{`{"a": [1, 2]}`, `"x"`, `null`, `12`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, size := range []int{1, 2, 3, 7, 64, 1000, readSize} {
				if len(tt.output) > 1<<16 && size < 1000 {
					continue
				}
				got, err := itemsOf(t, tt.items, tt.output, size)
				if err != nil || !slices.Equal(got, tt.want) {
					t.Errorf("read by %d bytes, the items are %.200q, %v; want %.200q", size, got, err, tt.want)
				}
			}
		})
	}
}

// TestChunks divides an output where it was read, but not inside characters.
func TestChunks(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		output string
		sizes  []int
		want   []string
	}{
		"as read":            {"ab\ncd", []int{2, 9}, []string{"ab", "\ncd"}},
		"inside a character": {"a👍b", []int{2, 1, 1, 1, 1}, []string{"a", "👍", "b"}},
		"one that ends":      {"a\xf0\x9f", []int{2, 1}, []string{"a", "\ufffd\ufffd"}},
		"not one":            {"a\xf0\x9fb", []int{2, 1, 1}, []string{"a", "\ufffd\ufffdb"}},
		"as much as is read": {strings.Repeat("\x01", readSize), []int{readSize}, []string{strings.Repeat("\x01", readSize)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := itemsOf(t, Chunks, tt.output, tt.sizes...); err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("the items are %.200q, %v; want %.200q", got, err, tt.want)
			}
		})
	}
}

// TestNoJSON has lines that are no items.
func TestNoJSON(t *testing.T) {
	t.Parallel()
	wire := func(a stream.Annotated) error { // what a server's send says of it
		if !json.Valid(a.Data) {
			return errors.New("data is not JSON")
		}
		return nil
	}
	for output, want := range map[string]string{
		"1\nhello\n2\n": "line 2 of the program's output: data is not JSON",
		"1\n{":          "line 2 of the program's output: data is not JSON",
		`"` + strings.Repeat("x", maxItem) + "\"\n": fmt.Sprintf("line 1 of the program's output is longer than the %d bytes of an item", maxItem),
	} {
		s := &sink{items: JSON, send: wire}
		_, err := s.write([]byte(output))
		if err == nil {
			err = s.finish(nil)
		}
		if err == nil || err.Error() != want {
			t.Errorf("the error is %v, want %q", err, want)
		}
	}
}

// FuzzLines holds the division of lines against the plain way to do it.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nb\xff\n\xf0\x9f\x91\x8d"), uint64(1))
	f.Fuzz(func(t *testing.T, output []byte, seed uint64) {
		var want []string
		for line := range bytes.Lines(output) {
			want = append(want, string([]rune(string(line)))) // replaces what is not UTF-8
		}
		random := rand.New(rand.NewPCG(seed, 0))
		sizes := make([]int, len(output)+1)
		for i := range sizes {
			sizes[i] = 1 + random.IntN(12)
		}
		if got, err := itemsOf(t, Lines, string(output), sizes...); err != nil || !slices.Equal(got, want) {
			t.Errorf("the items of %q are %q, %v; want %q", output, got, err, want)
		}
	})
}
