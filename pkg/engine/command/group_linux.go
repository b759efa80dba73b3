package command

import (
	"errors"
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

// awaitExit waits until the program has ended, and leaves it to be reaped.
func awaitExit(cmd *exec.Cmd) {
	for errors.Is(unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
}

// reap takes the end of a program that has ended.
func reap(cmd *exec.Cmd) { _ = cmd.Wait() } // ProcessState tells

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
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ENOSYS):
		return nil // nobody may trace here, so it will show
	default:
		return err
	}
}
