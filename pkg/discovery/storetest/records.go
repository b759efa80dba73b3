package storetest

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

func putShows(s *suite) {
	store := s.open()
	running := s.follow(store, ep)
	running.until(want{})
	s.put(store, ep+"b", "2")
	s.stands(store, ep, want{ep + "b": "2"})
	s.put(store, ep+"c", "3")
	s.put(store, ep+"a", "1")
	all := want{ep + "a": "1", ep + "b": "2", ep + "c": "3"}
	s.stands(store, ep, all)
	running.until(all)

	if s.Join != nil {
		other := s.join(store)
		s.stands(other, ep, all)
		running := s.follow(other, ep)
		running.until(all)
		all[ep+"d"] = "4"
		s.put(store, ep+"d", "4")
		running.until(all)
		s.stands(other, ep, all)
	}
}

func putReplaces(s *suite) {
	store := s.open()
	s.put(store, ep+"a", "old")
	running := s.follow(store, ep)
	running.until(want{ep + "a": "old"})
	// All values have the same length, so that a store can't go by size.
	for _, value := range []string{"new", "two", "six", "old", "new"} {
		s.put(store, ep+"a", value)
		s.stands(store, ep, want{ep + "a": value})
		running.until(want{ep + "a": value})
	}
}

func putCopiesValue(s *suite) {
	store := s.open()
	value := []byte("mine")
	if _, err := store.Put(s.soon(), ep+"a", value, 0); err != nil {
		s.Fatalf("Put: %v", err)
	}
	copy(value, "your")
	s.stands(store, ep, want{ep + "a": "mine"})
}

func releaseRemoves(s *suite) {
	store := s.open()
	a := s.put(store, ep+"a", "1")
	b := s.putFor(store, ep+"b", "2", time.Hour)
	running := s.follow(store, ep)
	running.until(want{ep + "a": "1", ep + "b": "2"})
	s.release(a)
	s.stands(store, ep, want{ep + "b": "2"})
	running.until(want{ep + "b": "2"})
	s.release(b)
	s.stands(store, ep, want{})
	running.until(want{})

	s.release(a) // does nothing
	s.put(store, ep+"a", "again")
	s.release(a)
	s.stands(store, ep, want{ep + "a": "again"})
}

func earlierLease(s *suite) {
	store := s.open()
	earlier := s.put(store, ep+"a", "1")
	later := s.put(store, ep+"a", "2")
	s.release(earlier)
	s.stands(store, ep, want{ep + "a": "2"})
	s.release(later)
	s.stands(store, ep, want{})

	// The same value makes no difference.
	earlier = s.put(store, ep+"a", "1")
	s.put(store, ep+"a", "1")
	s.release(earlier)
	s.stands(store, ep, want{ep + "a": "1"})
}

func earlierLeaseOfAnother(s *suite) {
	store := s.open()
	other := s.join(store)
	earlier := s.put(store, ep+"a", "1")
	later := s.put(other, ep+"a", "2")
	s.release(earlier)
	s.stands(store, ep, want{ep + "a": "2"})
	s.release(later)
	s.stands(store, ep, want{})

	// Closing the earlier owner's store does not remove the later record either.
	s.put(store, ep+"a", "1")
	s.put(other, ep+"a", "2")
	s.close(store)
	s.stands(other, ep, want{ep + "a": "2"})
}

func everyByte(s *suite) {
	store := s.open()
	var all strings.Builder
	for b := range 256 {
		all.WriteByte(byte(b))
	}
	values := want{
		ep + "bytes":   all.String(),
		ep + "nul":     "\x00",
		ep + "newline": "\n",
		ep + "quotes":  `{"a":"\"\\'` + "`" + `"}` + "\r\n",
		ep + "utf8":    "żółć 🙂 e\u0301",
		ep + "large":   strings.Repeat("0123456789abcdef", s.MaxValue/16),
	}
	for key, value := range values {
		s.put(store, key, value)
	}
	s.stands(store, ep, values)
}

func oddKeys(s *suite) {
	store := s.open()
	keys := want{}
	for _, segment := range []string{
		"%", "%2F", "%2f", "%25", "...", ".hidden", ".tmp_x", "a.b", "a b", " ", "~", "*", "?", "\\", "$HOME", "'", `"`,
		":", "a:b", "-", "--", "#", "&", "+", "żółć", "🙂", "e\u0301", "_", "v1", "\u00a0", "<", "|",
	} {
		keys[ep+segment] = "at the end: " + segment
		keys[ep+segment+"/x"] = "in the middle: " + segment
	}
	for key, value := range keys {
		s.put(store, key, value)
	}
	s.stands(store, ep, keys)
	s.stands(store, ep+"%2F/", want{ep + "%2F/x": keys[ep+"%2F/x"]})
}

func badRecords(s *suite) {
	store := s.open()
	tooLarge := strings.Repeat("x", discovery.MaxValue+1)
	for _, bad := range []struct {
		what, key, value string
		ttl              time.Duration
	}{
		{"an empty key", "", "x", 0},
		{"one segment", "v1", "x", 0},
		{"two segments", "v1/instances", "x", 0},
		{"no third segment", "v1/instances/", "x", 0},
		{"a slash first", "/v1/instances/a", "x", 0},
		{"a slash last", "v1/instances/a/", "x", 0},
		{"an empty segment", "v1/instances/a//b", "x", 0},
		{"a dot", "v1/instances/a/./b", "x", 0},
		{"two dots", "v1/instances/a/../b", "x", 0},
		{"two dots first", "../v1/instances/a", "x", 0},
		{"two dots last", "v1/instances/a/..", "x", 0},
		{"a NUL", "v1/instances/a\x00b", "x", 0},
		{"a newline", "v1/instances/a\nb", "x", 0},
		{"no UTF-8", "v1/instances/a\xffb", "x", 0},
		{"an odd leading segment", "v1/inst ances/a", "x", 0},
		{"an empty value", ep + "a", "", 0},
		{"a value too large", ep + "a", tooLarge, 0},
		{"a negative ttl", ep + "a", "x", -time.Second},
	} {
		if _, err := store.Put(s.soon(), bad.key, []byte(bad.value), bad.ttl); err == nil {
			s.Errorf("Put took %s: key %q", bad.what, bad.key)
		}
	}
	s.stands(store, "v1/instances/", want{})

	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	if _, err := store.Put(ctx, ep+"a", []byte("x"), 0); !errors.Is(err, context.Canceled) {
		s.Errorf("Put with a cancelled context: %v, want %v", err, context.Canceled)
	}
}
