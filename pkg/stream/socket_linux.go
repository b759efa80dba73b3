package stream

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setUserTimeout ends a connection on which what was sent stays unacknowledged
// for d, or the other end takes nothing for as long. It takes the place of the
// keep-alive's count of probes.
func setUserTimeout(conn *net.TCPConn, d time.Duration) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return // closed already
	}
	_ = raw.Control(func(fd uintptr) { // best effort, as keepAlive is
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
}

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
