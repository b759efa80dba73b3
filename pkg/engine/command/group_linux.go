package command

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// ofGroup puts a program into a group of its own, and ends it together with the
// thread that started it.
func ofGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// pipeSize is how many bytes a program's output may have written and we not have
// read. At the usual 64 KiB the two wait for each other too often; 1 MiB is what
// the kernel lets anybody have.
const pipeSize = 256 << 10

// widen makes a pipe hold more, if it may.
func widen(pipe *os.File) {
	raw, err := pipe.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) // it works without
	})
}

// awaitExit waits until the program has ended, and leaves it to be reaped.
func awaitExit(cmd *exec.Cmd) {
	for errors.Is(unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
}

// reap takes the end of a program that has ended, and of its children where those
// are this process's now: it is a container's first.
func reap(cmd *exec.Cmd) {
	_ = cmd.Wait() // ProcessState tells
	for err := error(nil); err == nil || errors.Is(err, unix.EINTR); {
		_, err = unix.Wait4(-cmd.Process.Pid, nil, 0, nil)
	}
}

// check returns why the program cannot be started. It is started for that, and
// killed before its first instruction, at the stop where a debugger would begin.
func check(cfg Config, path string) error {
	runtime.LockOSThread() // the one that started it is its tracer
	defer runtime.UnlockOSThread()
	attr := ofGroup()
	attr.Ptrace = true
	cmd := &exec.Cmd{Path: path, Args: cfg.Args, Dir: cfg.Dir, Env: cfg.Env, SysProcAttr: attr}
	switch err := cmd.Start(); {
	case err == nil:
		kill(cmd)
		reap(cmd)
		return nil
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.ETXTBSY):
		return nil // nobody may trace here, or it is being written: it will show
	default:
		return err
	}
}
