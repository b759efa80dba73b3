//go:build !linux

package stream

import (
	"net"
	"syscall"
	"time"
)

// setUserTimeout does nothing: the keep-alive's count of probes applies.
func setUserTimeout(*net.TCPConn, time.Duration) {}

// unacknowledged returns 0: other systems do not say.
func unacknowledged(syscall.Conn) int { return 0 }
