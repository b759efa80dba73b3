package command

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSupervisorIgnores sends the supervisor the signals that end its server.
func TestSupervisorIgnores(t *testing.T) {
	t.Parallel()
	signals := []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM}
	s := newSupervisor(slog.New(slog.DiscardHandler), "")
	deadline := time.Now().Add(time.Minute)
	for !ignores(t, s.shell.Process.Pid, signals) {
		if time.Now().After(deadline) {
			t.Fatal("after a minute it does not ignore them")
		}
		time.Sleep(time.Millisecond) // the kernel tells nobody
	}
	group, killed := sleeper(t)
	s.began(group)
	shell := s.shell
	for _, sig := range signals {
		if err := shell.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	s.dies()
	killed()
	if !shell.ProcessState.Success() {
		t.Errorf("it ended by itself: %v", shell.ProcessState)
	}
}

// ignores reports whether a process ignores signals.
func ignores(t *testing.T, pid int, signals []syscall.Signal) bool {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "\nSigIgn:")
	var mask uint64
	if _, err := fmt.Sscanf(rest, "%x", &mask); err != nil {
		t.Fatal(err)
	}
	for _, sig := range signals {
		if mask&(1<<(sig-1)) == 0 {
			return false
		}
	}
	return true
}
