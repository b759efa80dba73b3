// Package etcdtest runs real etcd servers for tests, as child processes, so that a test
// can kill them, freeze them, cut them off and start them again.
//
// The server is a small program in testdata/etcd, which is a module of its own, so that
// no etcd server is linked into this module. The first use builds it into the user's
// cache directory, which takes about a minute and downloads its modules; later uses, by
// any test of this module, find it there. A build that fails fails the test; it never
// skips it.
package etcdtest
