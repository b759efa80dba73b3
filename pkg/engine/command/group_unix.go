//go:build unix

package command

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// terminate asks the program's group to end.
func terminate(cmd *exec.Cmd) { signalGroup(cmd, syscall.SIGTERM) }

// kill ends the program's group.
func kill(cmd *exec.Cmd) { signalGroup(cmd, syscall.SIGKILL) }

// signalGroup sends a signal to a group, which may have ended. Nobody else can
// have its number as long as the program was not reaped.
func signalGroup(cmd *exec.Cmd, sig syscall.Signal) { _ = syscall.Kill(-cmd.Process.Pid, sig) }

// readNow reads what is in a pipe. If nothing is, and somebody may still write, the
// error is [os.ErrDeadlineExceeded].
func readNow(f *os.File, buf []byte) (n int, err error) {
	if err := f.SetReadDeadline(time.Time{}); err != nil {
		return 0, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	tried := raw.Read(func(fd uintptr) bool {
		for {
			n, err = syscall.Read(int(fd), buf)
			if !errors.Is(err, syscall.EINTR) {
				return true
			}
		}
	})
	switch {
	case tried != nil:
		return 0, tried
	case errors.Is(err, syscall.EAGAIN):
		return 0, errors.Join(os.ErrDeadlineExceeded, f.SetReadDeadline(time.Now()))
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	// Still late for the next read.
	return n, f.SetReadDeadline(time.Now())
}
