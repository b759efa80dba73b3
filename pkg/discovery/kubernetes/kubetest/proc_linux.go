package kubetest

import (
	"os/exec"
	"syscall"
)

// dieWithParent ends the program when the test that starts it is killed.
func dieWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
