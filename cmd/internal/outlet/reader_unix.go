//go:build unix

package outlet

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// readerGone waits until nobody reads f any more, or until the other end of stop is
// closed. It reports whether it was the former.
func readerGone(f, stop *os.File) bool {
	// POLLERR and POLLHUP are always reported, but macOS ignores an entry without any
	// requested event.
	fds := []unix.PollFd{
		{Fd: int32(f.Fd()), Events: unix.POLLHUP},
		{Fd: int32(stop.Fd()), Events: unix.POLLIN},
	}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil, fds[1].Revents != 0:
			return false
		case fds[0].Revents != 0:
			return fds[0].Revents&unix.POLLNVAL == 0
		}
	}
}
