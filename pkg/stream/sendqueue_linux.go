package stream

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// unacknowledged returns how many of the bytes that were written to conn have
// not yet come to the other end's system, as far as this one knows.
func unacknowledged(conn syscall.Conn) int {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0 // closed already
	}
	n := 0
	if raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }) != nil || err != nil {
		return 0
	}
	return n
}
