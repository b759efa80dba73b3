//go:build !linux

package stream

import (
	"net"
	"syscall"
	"time"
)

// setUserTimeout does nothing: the count of the keep-alive's probes stands.
func setUserTimeout(*net.TCPConn, time.Duration) {}

// unacknowledged returns 0: other systems don't say.
func unacknowledged(syscall.Conn) int { return 0 }
