// Package etcd is the [discovery.Store] that many machines share: records are
// keys of an etcd cluster, just as they are named, and live under its leases.
//
// Everything a [Store] keeps stands under one lease a store, renewed every
// third of its time. When etcd has lost that lease (in an outage longer than
// the lease, with its data, or by an operator's hand) the store takes a new one
// by itself and writes its records again under the same keys; so too a single
// record that was deleted, damaged, or written again without a lease. A record
// that another owner has put since is theirs: the newest stands. It is put again
// when its key is free.
//
// A watch lists everything at one revision and follows the changes from there.
// If its stream breaks, is cancelled (as after a compaction) or misses changes,
// it lists again. While that fails it yields what it last knew, marked stale. A
// stream that is silent is asked how far it is, and where a proxy keeps that from
// etcd the watch reads whether it has missed anything.
//
// Certificates are read again for each connection.
//
// Nothing here waits for etcd without a bound, and nothing but the first
// connection, a first list and a Put fails because etcd is away.
package etcd
