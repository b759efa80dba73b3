package stream

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// readAll returns the lines from next, joined, and how it ended.
func readAll(t *testing.T, r io.Reader) (string, error) {
	t.Helper()
	l := lineReader{r: r}
	var all []byte
	for {
		block, err := l.next()
		if errors.Is(err, errLineTooLong) && len(block) > MaxLine && bytes.IndexByte(block, '\n') < 0 {
			continue
		}
		if err != nil {
			return string(all), err
		}
		if len(block) == 0 || block[len(block)-1] != '\n' {
			t.Fatalf("%.40q is not whole lines", block)
		}
		all = append(all, block...)
		if len(l.buf) > 4*MaxLine {
			t.Fatalf("holds a buffer of %d bytes", len(l.buf))
		}
	}
}

func TestLineReader(t *testing.T) {
	long := strings.Repeat("x", MaxLine)
	for _, tt := range []struct {
		in, want string
		err      error
	}{
		{"", "", io.EOF},
		{"a\n", "a\n", io.EOF},
		{"\n\n", "\n\n", io.EOF},
		{"a\nb\nc", "a\nb\n", io.ErrUnexpectedEOF},
		{"c", "", io.ErrUnexpectedEOF},
		{long + "\nb\n", long + "\nb\n", io.EOF},
		{"a\n" + long + "xx", "a\n", io.ErrUnexpectedEOF},
		{"a\n" + long + long, "a\n", io.ErrUnexpectedEOF},
		{"a\n" + long + long + "x\n", "a\n", io.EOF},
		{"a\n" + long + long + "\nb\nc\n" + long + long + "\n\n" + long, "a\nb\nc\n\n", io.ErrUnexpectedEOF},
		{"a\n" + strings.Repeat(long, 34) + "\nb\n", "a\n", errLineTooLong},
	} {
		for name, r := range map[string]io.Reader{
			"whole":        strings.NewReader(tt.in),
			"halves":       iotest.HalfReader(strings.NewReader(tt.in)),
			"err with end": iotest.DataErrReader(strings.NewReader(tt.in)),
		} {
			if got, err := readAll(t, r); got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%s of %d bytes %.20q: got %d bytes, %v, want %d, %v", name, len(tt.in), tt.in, len(got), err, len(tt.want), tt.err)
			}
		}
	}
	if got, err := readAll(t, iotest.OneByteReader(strings.NewReader("a\nbc\nd"))); got != "a\nbc\n" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("byte by byte: %q, %v", got, err)
	}
	if got, err := readAll(t, iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("\nb")))); got != "\n" || !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("error of the connection: %q, %v", got, err)
	}
}

func TestLineReaderGivesMemoryBack(t *testing.T) {
	in := strings.Repeat("x", MaxLine-1) + "\n" + strings.Repeat("short\n", 100_000)
	l := lineReader{r: strings.NewReader(in)}
	for {
		if _, err := l.next(); err != nil {
			break
		}
	}
	if len(l.buf) > largeBuffer {
		t.Errorf("holds %d bytes after a long line, want at most %d", len(l.buf), largeBuffer)
	}
	idle := lineReader{r: iotest.OneByteReader(strings.NewReader(strings.Repeat("short\n", 1000)))}
	for {
		if _, err := idle.next(); err != nil {
			break
		}
	}
	if len(idle.buf) > smallBuffer {
		t.Errorf("holds %d bytes for short lines, want %d", len(idle.buf), smallBuffer)
	}
}

// FuzzLineReader cuts its input into reads of any size.
func FuzzLineReader(f *testing.F) {
	f.Add([]byte("a\nb\nc"), []byte{1, 2})
	f.Add([]byte(strings.Repeat("line\n", 2000)), []byte{255, 3})
	f.Add([]byte(strings.Repeat("x", 9000)+"\n"+"y\n"), []byte{200})
	f.Fuzz(func(t *testing.T, in, sizes []byte) {
		got, err := readAll(t, &chopped{in: in, sizes: sizes})
		whole := bytes.LastIndexByte(in, '\n') + 1
		if got != string(in[:whole]) {
			t.Fatalf("got %d bytes, want %d", len(got), whole)
		}
		if want := map[bool]error{true: io.EOF, false: io.ErrUnexpectedEOF}[whole == len(in)]; !errors.Is(err, want) {
			t.Fatalf("ended with %v, want %v", err, want)
		}
	})
}

// chopped reads in pieces of the given sizes, again and again.
type chopped struct {
	in, sizes []byte
	i         int
}

func (c *chopped) Read(p []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := len(c.in)
	if len(c.sizes) > 0 {
		n = int(c.sizes[c.i%len(c.sizes)]) * 16
		c.i++
	}
	n = copy(p, c.in[:min(max(n, 1), len(c.in))])
	c.in = c.in[n:]
	return n, nil
}
