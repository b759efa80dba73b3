package discovery

import (
	"context"
	"errors"
	"iter"
	"time"
)

// MaxValue is the size in bytes of the largest value that a [Store] takes: 1 MiB,
// which is less than etcd's default limit of 1.5 MiB for a whole request.
const MaxValue = 1 << 20

// ErrClosed is the error of a [Store] that has been closed.
var ErrClosed = errors.New("store is closed")

// A Store is a leased key-value store: a value stands under its key for as long
// as its owner lives. Keys are slash-separated, begin with two segments that
// name what is stored ("v1/instances/", "v1/down/") and have at least one more;
// values are not empty and at most [MaxValue] bytes. [CheckRecord] and
// [CheckPrefix] have the rules in full.
//
// A Store is safe for concurrent use. Package storetest puts any
// implementation through this contract.
type Store interface {
	// Put publishes value under key and returns once other readers of the
	// store can see it. ctx bounds the call alone, not the record's life: that
	// lasts until its lease is released or the store is closed.
	//
	// With ttl zero the store keeps the record alive by itself, and writes it
	// again under the same key when the backend has lost it; when this process
	// dies the backend drops the record within its own lease time. With ttl
	// above zero nothing renews the record, it outlives Close and this process,
	// and it is gone ttl after Put (a backend that counts in whole seconds, or
	// has a shortest lease time, rounds up).
	//
	// Putting a key again, through whichever Store on the same backend,
	// replaces its value and lifetime; the lease of the earlier Put then
	// releases nothing. If that was through another Store, its owner warns,
	// renews the record no more, and puts it again once the key is free,
	// unless it was released before. A record of the owner's own (the same
	// bytes, or a JSON object with the same "incarnation") that somebody has
	// copied or edited, and one that is damaged, the owner puts again at once.
	// The Store copies value if it needs it later. After Close the error is
	// [ErrClosed].
	Put(ctx context.Context, key string, value []byte, ttl time.Duration) (Lease, error)

	// Watch yields the records whose keys begin with prefix, which names at
	// least the two leading segments and ends in a slash. Each pair is the
	// complete set, never a delta; the first comes at once, even if empty, and
	// a reader that is slow gets the latest set, not every one in between.
	//
	// An error before the first set ends the watch. After it the watch heals
	// by itself: while the backend can't be read, the last known set is
	// yielded again with [Snapshot.Stale] saying why. So the last pair of a
	// watch that had begun is the one with ctx's error, or [ErrClosed].
	Watch(ctx context.Context, prefix string) iter.Seq2[Snapshot, error]

	// Close releases the leases of the records that this store keeps, those
	// put with ttl zero, ends its watches with [ErrClosed] and waits for its
	// goroutines. Closing again does nothing.
	Close() error
}

// A Lease is one record that its owner keeps in a [Store].
type Lease interface {
	// Release removes the record and returns once other readers of the store
	// no longer see it. If ctx ends first, the record expires with its lease
	// time instead. Releasing again does nothing, nor does releasing after the
	// record was replaced or the store closed.
	Release(ctx context.Context) error
}
