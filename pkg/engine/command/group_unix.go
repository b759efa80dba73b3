//go:build unix

package command

import (
	"os/exec"
	"syscall"
)

// terminate asks the program's group to end.
func terminate(cmd *exec.Cmd) { signalGroup(cmd, syscall.SIGTERM) }

// kill ends the program's group.
func kill(cmd *exec.Cmd) { signalGroup(cmd, syscall.SIGKILL) }

// signalGroup sends a signal to a group, which may have ended. Nobody else can
// have its number as long as the program was not reaped.
func signalGroup(cmd *exec.Cmd, sig syscall.Signal) { _ = syscall.Kill(-cmd.Process.Pid, sig) }
