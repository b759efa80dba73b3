package discovery

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// leading is how many segments of a key name what is stored ("v1/instances/").
const leading = 2

// CheckRecord says what keeps a record out of any [Store], or returns nil.
//
// A key is slash-separated, valid UTF-8, and has three segments or more. None
// is empty, "." or "..", or has a control character; the first two are made of
// ASCII letters, digits, "-" and "_", so that they can name directories. A
// value has 1 to [MaxValue] bytes. A ttl is not negative.
func CheckRecord(key string, value []byte, ttl time.Duration) error {
	if err := checkKey(key); err != nil {
		return fmt.Errorf("key %q: %w", key, err)
	}
	switch {
	case len(value) == 0:
		return fmt.Errorf("value of %s is empty", key)
	case len(value) > MaxValue:
		return fmt.Errorf("value of %s has %d bytes, more than %d", key, len(value), MaxValue)
	case ttl < 0:
		return fmt.Errorf("ttl of %s is negative: %v", key, ttl)
	}
	return nil
}

// CheckPrefix says why prefix can't be watched, or returns nil: it must be two
// segments of a key or more, as [CheckRecord] has them, each ended by a slash.
func CheckPrefix(prefix string) error {
	segments, ended := strings.CutSuffix(prefix, "/")
	if !ended {
		return fmt.Errorf("prefix %q: does not end in a slash", prefix)
	}
	if err := checkSegments(segments, leading); err != nil {
		return fmt.Errorf("prefix %q: %w", prefix, err)
	}
	return nil
}

func checkKey(key string) error { return checkSegments(key, leading+1) }

func checkSegments(s string, atLeast int) error {
	if !utf8.ValidString(s) {
		return errors.New("not valid UTF-8")
	}
	n := 0
	for segment := range strings.SplitSeq(s, "/") {
		n++
		switch {
		case segment == "":
			return errors.New("a segment is empty")
		case segment == "." || segment == "..":
			return fmt.Errorf("%q is no segment", segment)
		case strings.ContainsFunc(segment, unicode.IsControl):
			return errors.New("a segment has a control character")
		case n <= leading && strings.ContainsFunc(segment, notPlain):
			return fmt.Errorf("segment %q has more than ASCII letters, digits, - and _", segment)
		}
	}
	if n < atLeast {
		return fmt.Errorf("%d segments are needed, not %d", atLeast, n)
	}
	return nil
}

func notPlain(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_':
		return false
	}
	return true
}
