//go:build unix

// Package suspend stops processes and lets them run again, for tests.
package suspend

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Freeze stops p, and returns once none of its threads runs any more. After the signal
// each thread stops when it next enters the kernel or is scheduled.
func Freeze(p *os.Process) error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for begin := time.Now(); !stopped(p.Pid); time.Sleep(time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			return errors.New("still running 10s after SIGSTOP")
		}
	}
	return nil
}

// stopped reports whether all threads of a process have stopped. It returns true where
// there is no /proc to see that.
func stopped(pid int) bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return true
	}
	for _, stat := range stats {
		b, err := os.ReadFile(stat)
		if err != nil {
			continue // a thread that has ended meanwhile
		}
		// The state follows the name, which is in parentheses and may contain some.
		i := bytes.LastIndexByte(b, ')')
		if i >= 0 && i+2 < len(b) && b[i+2] != 'T' {
			return false
		}
	}
	return true
}

// Thaw lets a stopped process run again.
func Thaw(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
