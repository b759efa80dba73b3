//go:build !linux

package stream

import "syscall"

// unacknowledged returns 0: other systems don't say.
func unacknowledged(syscall.Conn) int { return 0 }
