//go:build unix

package outlet

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// readerGone waits until nobody reads any more what is written to f, or until the
// other end of stop is closed; it reports whether it was the former.
func readerGone(f, stop *os.File) bool {
	// POLLERR and POLLHUP are reported without being asked for, but macOS wakes
	// only who asks for something.
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
