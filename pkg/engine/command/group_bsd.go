//go:build unix && !linux

package command

import (
	"os"
	"os/exec"
	"syscall"
)

// ofGroup puts a program into a group of its own.
func ofGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// awaitExit waits until the program has ended. It also reaps it, since there is
// no portable way to wait without that: if the group has ended too, and its
// number was given to another one within moments, a signal may reach that.
func awaitExit(cmd *exec.Cmd) { _ = cmd.Wait() } // ProcessState tells

// reap has nothing left to do.
func reap(*exec.Cmd) {}

// widen has nothing to ask for.
func widen(*os.File) {}

// check finds nothing beyond what [exec.LookPath] does.
func check(Config, string) error { return nil }
