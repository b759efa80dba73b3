package discovery

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// MaxValue is the size in bytes of the largest value that a [Store] takes: 1 MiB,
// which is less than etcd's default limit of 1.5 MiB for a whole request.
const MaxValue = 1 << 20

// ErrClosed is the error of a [Store] that has been closed.
var ErrClosed = errors.New("store is closed")

// A Store is a leased key-value store: a value stands under its key for as long as
// its owner lives. Keys have three slash-separated segments or more, of which the
// first two name what is stored ("v1/instances/", "v1/down/"). Values have 1 to
// [MaxValue] bytes. [CheckRecord] and [CheckPrefix] have all rules.
//
// A Store is safe for concurrent use. Package storetest tests any implementation of
// this contract.
type Store interface {
	// Put publishes value under key and returns once other readers of the store can
	// see it. ctx bounds the call, not the record's life.
	//
	// With a ttl of zero the store keeps the record alive until its lease is released
	// or the store is closed, and writes it again when the backend has lost it. When
	// this process dies, the backend drops the record within its lease time. With a
	// ttl above zero nobody renews the record: it outlives Close and this process, and
	// it is gone ttl after Put. A backend that counts in whole seconds, or has a
	// shortest lease time, rounds the ttl up.
	//
	// Putting a key again, through any Store on the same backend, replaces its value
	// and lifetime. The lease of the earlier Put then releases nothing. If the later
	// Put went through another Store, the earlier owner warns and stops renewing, and
	// puts its record again once the key is free, unless it has released it.
	//
	// An owner writes its record again if somebody has damaged or edited it. It
	// recognises its record by the same bytes or, in a JSON object, by the same
	// "incarnation".
	//
	// The Store copies value if it needs it later. After Close the error is
	// [ErrClosed].
	Put(ctx context.Context, key string, value []byte, ttl time.Duration) (Lease, error)

	// Watch yields the records whose keys begin with prefix, which has two segments
	// or more and ends in a slash. Each pair is the complete set, never a delta. The
	// first comes at once, even if it is empty. A slow reader gets the latest set, not
	// every one in between.
	//
	// An error before the first set ends the watch. After the first set the watch
	// recovers by itself: while the backend can't be read, it yields the last known
	// set with the reason in [Snapshot.Stale]. It ends with a pair that has ctx's
	// error or [ErrClosed].
	Watch(ctx context.Context, prefix string) iter.Seq2[Snapshot, error]

	// Close releases the records that were put with a ttl of zero, ends the watches
	// with [ErrClosed] and waits for the store's goroutines. It does not wait for the
	// readers of watches: one that is busy with a set, or has stopped asking without
	// leaving, learns of the end when it asks again. Closing again does nothing.
	Close() error
}

// A Lease is one record that its owner keeps in a [Store].
type Lease interface {
	// Release removes the record and returns once other readers of the store no
	// longer see it. If ctx ends first, the record expires within the backend's lease
	// time instead. Release does nothing if the record was released or replaced, or
	// the store closed. It is safe for concurrent use.
	Release(ctx context.Context) error
}

// An Expirer is a [Store] that can tell how long a record still stands. Every store
// of this module is one. It is optional: a reader takes the records of any other
// store to be new when it first sees them.
type Expirer interface {
	// Expiry returns how long the record under key still stands if nobody renews
	// it or puts it again: 0 if there is none, or if it never expires. The store may
	// round it by up to a second. ctx bounds the call; an error says that the
	// store can't be read now. It is safe for concurrent use.
	Expiry(ctx context.Context, key string) (time.Duration, error)
}

// A Snapshot is the complete set of records under a prefix at one moment. Readers may
// share it, and must not change it.
type Snapshot struct {
	Records []Record // sorted by key
	// Stale is nil if the set is current. Otherwise Records is the last known set,
	// and Stale is the reason why the store can't be read now.
	Stale error
}

// A Record is one key and its value.
type Record struct {
	Key   string
	Value []byte
}

// Under returns the part of s whose keys begin with prefix. It copies nothing.
func (s Snapshot) Under(prefix string) Snapshot {
	from, _ := slices.BinarySearchFunc(s.Records, prefix, func(r Record, prefix string) int {
		return cmp.Compare(r.Key, prefix)
	})
	// In sorted order the keys with one prefix stand together.
	under := s.Records[from:]
	to, _ := slices.BinarySearchFunc(under, prefix, func(r Record, prefix string) int {
		if strings.HasPrefix(r.Key, prefix) {
			return -1
		}
		return 1
	})
	return Snapshot{Records: under[:to:to], Stale: s.Stale}
}

// Equal reports whether a reader of s would learn nothing new from t: the same
// records, and the same reason (by its text) for being stale, if any.
func (s Snapshot) Equal(t Snapshot) bool {
	if (s.Stale == nil) != (t.Stale == nil) {
		return false
	}
	if s.Stale != nil && s.Stale.Error() != t.Stale.Error() {
		return false
	}
	return slices.EqualFunc(s.Records, t.Records, func(a, b Record) bool {
		return a.Key == b.Key && bytes.Equal(a.Value, b.Value)
	})
}

// leading is the number of segments that name what is stored ("v1/instances/").
const leading = 2

// CheckRecord returns an error if no [Store] takes the record.
//
// A key is valid UTF-8 and has three slash-separated segments or more. No segment is
// empty, "." or "..", or has a control character. The first two segments can name
// directories: they have ASCII letters, digits, "-" and "_" alone. A value has 1 to
// [MaxValue] bytes. A ttl is not negative.
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

// CheckPrefix returns an error if prefix can't be watched. It must have two segments
// of a key or more, by the rules of [CheckRecord], and end in a slash.
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
