package stream

import (
	"errors"
	"net"
	"slices"
	"strings"
	"syscall"
)

// isLocal reports whether err is this machine's own trouble and says nothing
// about the server: no file descriptor, no network, no address to call from, or
// a name that can't be looked up.
func isLocal(err error) bool {
	if lookup, ok := errors.AsType[*net.DNSError](err); ok {
		return !strings.Contains(lookup.Name, "/") // tcp/PORT: that is the address's fault
	}
	errno, ok := errors.AsType[syscall.Errno](err)
	return ok && slices.Contains([]syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EADDRNOTAVAIL,
	}, errno)
}
