// Package etcd is the [discovery.Store] that many machines share: records are
// keys of an etcd cluster, just as they are named, and live under its leases.
//
// Everything a [Store] keeps stands under one lease a store, renewed every
// third of its time. When etcd has lost that lease (in an outage longer than
// the lease, with its data, or by an operator's hand) the store takes a new one
// by itself and writes its records again under the same keys; so too a single
// record that was deleted. A record that somebody else has put since is theirs
// and is left alone.
//
// A watch lists everything at one revision and follows the changes from there.
// If its stream breaks, is cancelled (as after a compaction) or falls silent,
// it lists again. While that fails it yields what it last knew, marked stale.
//
// Nothing here waits for etcd without a bound, and nothing but the first
// connection, a first list and a Put fails because etcd is away.
package etcd
