package discovery

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
)

// Snapshot is the complete set of records under a prefix at one moment.
// It may be shared: readers must not change it.
type Snapshot struct {
	Records []Record // sorted by key
	// Stale is nil while the set is current. Otherwise Records is the last
	// known set and Stale says why the store can't be read now.
	Stale error
}

// Record is one key and its value.
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
