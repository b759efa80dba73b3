// Package kubernetes is the [discovery.Store] of a Kubernetes cluster: records are
// Lease objects (coordination.k8s.io/v1) in one namespace, and need no other service.
//
// A kept record is a Lease of its own: the key and the value are annotations, and
// labels with hashes of the key's first segments let a watch ask for what it wants
// alone. The Lease belongs to the Pod that put it, so that Kubernetes deletes it
// together with the Pod. A [Store] renews it every third of the lease's time, and every
// 3 s at least, as kubelets do: by an update that says which version it replaces. So the
// owner notices when the record was deleted, edited or put by another owner. It writes
// what was deleted or edited again, and yields to a newer owner until the key is free.
//
// Records with a ttl, such as down reports, share Leases: those under one endpoint are
// annotations of up to 16 objects, however many there are and whoever puts them.
//
// A reader takes a record to be dead if it has seen no renewal for as long as the lease
// lasts, and a read confirms that. No writer's clock is compared with a reader's. A
// reader that has just begun, and has seen nothing yet, goes by the API server's clock,
// which writers and readers learn from the Date of its answers; see clock. While the API
// server is away nobody can renew, so a set is marked stale and nobody is taken to be
// dead.
//
// Every store removes the Leases of dead owners now and then, and never one that was
// renewed: it says which version it has seen.
//
// Certificates, tokens and the kubeconfig are read again when the API server, or this
// side, refuses the ones in use.
//
// The store speaks to the API with client-go's configuration and HTTP transport, and
// without its clients and informers, whose schemes make a program twice as large.
package kubernetes
