package stream

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setUserTimeout ends a connection on which sent data stays unacknowledged for
// d, or the other end accepts nothing for that long. It takes the place of the
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

// unacknowledged returns how many of the bytes written to conn the other end's
// system has not acknowledged yet.
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
