//go:build !linux

package stream

import (
	"net"
	"time"
)

// setUserTimeout does nothing: the count of the keep-alive's probes stands.
func setUserTimeout(*net.TCPConn, time.Duration) {}
