//go:build unix

package command

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// sleeper starts a process in a group of its own, and returns a function that
// waits until it was killed.
func sleeper(t *testing.T) (group int, killed func()) {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), "sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	return cmd.Process.Pid, func() {
		t.Helper()
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Fatal("the process still runs after a minute")
		}
	}
}

// dies makes s think that its server has.
func (s *supervisor) dies() {
	closeFiles(s.in)
	_ = s.shell.Wait()
	s.shell = nil
}

// TestSupervisor has a server die: its groups end with it, but not those that
// had ended before, and its directory is gone.
func TestSupervisor(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a directory's name")
	if err := os.MkdirAll(filepath.Join(dir, "with", "files"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := newSupervisor(slog.New(slog.DiscardHandler), dir)
	var killed []func()
	var groups []int
	for range 5 {
		group, f := sleeper(t)
		s.began(group)
		groups, killed = append(groups, group), append(killed, f)
	}
	s.ended(groups[0])
	s.ended(groups[3])
	s.ended(groups[4])
	s.began(groups[4])
	s.dies()
	for _, i := range []int{1, 2, 4} {
		killed[i]()
	}
	for _, i := range []int{0, 3} {
		if err := syscall.Kill(-groups[i], 0); err != nil {
			t.Errorf("group %d, which had ended for the server, was killed: %v", i, err)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the directory is still there")
	}
}

// TestSupervisorKilled has the supervisor die first: the next program brings it
// back, and it knows the earlier ones.
func TestSupervisorKilled(t *testing.T) {
	t.Parallel()
	s := newSupervisor(slog.New(slog.DiscardHandler), "")
	first, firstKilled := sleeper(t)
	s.began(first)
	if err := s.shell.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	dead := s.shell.Process.Pid
	if _, err := s.shell.Process.Wait(); err != nil { // its end of the pipe is closed then
		t.Fatal(err)
	}
	second, secondKilled := sleeper(t)
	s.began(second)
	if s.shell == nil || s.shell.Process.Pid == dead {
		t.Fatal("it was not started again")
	}
	s.dies()
	firstKilled()
	secondKilled()
}

// TestSupervisorClosed has a server end in order: nothing is killed.
func TestSupervisorClosed(t *testing.T) {
	t.Parallel()
	s := newSupervisor(slog.New(slog.DiscardHandler), "")
	group, _ := sleeper(t)
	s.began(group)
	s.close()
	s.close() // as often as one likes
	s.began(group)
	if err := syscall.Kill(-group, 0); err != nil {
		t.Errorf("the group was killed: %v", err)
	}
}
