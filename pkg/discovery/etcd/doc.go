// Package etcd is the [discovery.Store] that many machines share: records are keys
// of an etcd cluster, under the same names, and live under its leases.
//
// A [Store] keeps all its records under one lease, which it renews every third of
// the lease's time, and every 3 s at least. When etcd has lost the lease (in an
// outage longer than the lease, with its data, or because an operator revoked it),
// the store takes a new one and writes its records again under the same keys. It
// also writes single records again that were deleted, damaged, or written without a
// lease. Of two owners of a key the newest stands; the other puts its record again
// once the key is free.
//
// A watch lists all records at one revision and follows the changes from there. If
// its stream breaks, is cancelled (as after a compaction) or misses changes, it
// lists again. While that fails it yields the last known set, marked stale. A watch
// whose stream is silent asks etcd for the stream's progress. If a proxy drops these
// questions, the watch reads from etcd whether it has missed anything.
//
// Certificates are read again for each connection.
//
// No call waits for etcd without a bound. While etcd is away only Open, Put, the
// first list of a watch, Expiry, Release and Close fail.
package etcd
