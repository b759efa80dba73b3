// Package discovery lists the instances that serve an endpoint now.
//
// A [Registry] keeps records of instances in a [Store] and reads them back. [Mem] is
// the store of a single process. The stores that several processes share are packages
// below this one, so that a program links only those that it imports.
package discovery
