// Package discovery lists the instances that serve an endpoint now.
//
// A [Registry] keeps records of instances in a [Store] and reads them back. A server
// registers with [Registry.Register], or through package server, which runs its whole
// life; a router follows [Registry.Watch]. Every watch yields complete sets, and outlives
// an outage of the store with the last known set, marked stale. Clients also tell each
// other through the registry which instances they have taken out of their lists: see
// [Report].
//
// [Mem] is the store of a single process. The stores that several processes share are
// packages below this one, so that a program links only those that it imports: file for
// one machine, etcd and kubernetes for many. Package storetest tests any other. A program
// that knows its servers needs no store: see [Static].
package discovery
