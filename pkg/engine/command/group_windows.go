package command

import (
	"log/slog"
	"os"
	"os/exec"
	"syscall"
)

// ofGroup has nothing to ask for: there are no groups.
func ofGroup() *syscall.SysProcAttr { return nil }

// awaitExit waits until the program has ended.
func awaitExit(cmd *exec.Cmd) { _ = cmd.Wait() } // ProcessState tells

// reap has nothing left to do.
func reap(*exec.Cmd) {}

// terminate ends the program, which cannot be asked to.
func terminate(cmd *exec.Cmd) { kill(cmd) }

// kill ends the program. It may have ended.
func kill(cmd *exec.Cmd) { _ = cmd.Process.Kill() }

// widen has nothing to ask for.
func widen(*os.File) {}

// readNow has nothing to read: pipes have no deadlines here.
func readNow(*os.File, []byte) (int, error) { return 0, os.ErrDeadlineExceeded }

// check finds nothing beyond what [exec.LookPath] does.
func check(Config, string) error { return nil }

// supervisor does nothing: there are no groups that it could end.
type supervisor struct{}

func newSupervisor(*slog.Logger, string) *supervisor { return nil }

func (*supervisor) began(int) {}

func (*supervisor) ended(int) {}

func (*supervisor) close() {}
