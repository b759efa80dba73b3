//go:build !unix

package etcdtest

// lock does nothing here: two builds at the same time only cost time.
func lock(string) (unlock func(), err error) { return func() {}, nil }
