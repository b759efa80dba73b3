package discovery

import (
	"hash/maphash"
	"sync"
)

// maxOddities bounds what a [Registry] remembers of other people's records, and
// with it the warnings it writes. A store with more of them is broken in a way
// that the first thousand have shown.
const maxOddities = 1000

// oddities are the records that have been warned about. The zero value is
// ready; it is safe for concurrent use.
type oddities struct {
	mu     sync.Mutex // guards what follows
	seed   maphash.Seed
	values map[string]uint64 // by key, a hash of the value warned about
}

// add reports whether r is new here, so that a warning is due.
func (o *oddities) add(r Record) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.values == nil {
		o.seed = maphash.MakeSeed()
		o.values = make(map[string]uint64)
	}
	hash := maphash.Bytes(o.seed, r.Value)
	old, known := o.values[r.Key]
	if known && old == hash || !known && len(o.values) >= maxOddities {
		return false
	}
	o.values[r.Key] = hash
	return true
}
