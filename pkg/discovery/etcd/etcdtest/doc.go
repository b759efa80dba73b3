// Package etcdtest runs real etcd servers for tests, as child processes, so
// that a test can kill them, freeze them, cut them off and start them again.
//
// The server is a small program in this module's testdata/etcd, a module of its
// own, so that nothing of an etcd server is linked into this one. The first use
// builds it (about a minute, and the network for its modules) into the user's
// cache folder; later uses, by any test of this module, take it from there. A
// build that fails is a failure of the test, never a skip.
package etcdtest
