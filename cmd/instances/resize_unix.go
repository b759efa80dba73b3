//go:build unix

package instances

import (
	"os"
	"os/signal"
	"syscall"
)

// notifyResize returns a channel that yields when the window's size changes, until stop is
// called.
func notifyResize() (resized <-chan os.Signal, stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGWINCH)
	return signals, func() { signal.Stop(signals) }
}
