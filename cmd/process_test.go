//go:build unix

package cmd_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience bounds each wait for another process, so that one that hangs fails the test.
// Nothing takes nearly as long.
const patience = time.Minute

// process is a command that runs beside the test. Its methods are for one
// goroutine at a time.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr *recording
	ended          chan struct{} // closed when it has, and everything is recorded
}

// start starts a command in dir with nothing but env as its environment.
func start(dir string, env []string, stdin io.Reader, args ...string) (*process, error) {
	return startInto(dir, env, stdin, nil, nil, args...)
}

// startInto is start for a command that writes to these files. Output to a nil one is
// recorded.
func startInto(dir string, env []string, stdin io.Reader, stdout, stderr *os.File, args ...string) (*process, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return nil, err
	}
	p := &process{
		cmd:    &exec.Cmd{Path: path, Args: args, Dir: dir, Env: env, Stdin: stdin},
		stdout: newRecording(), stderr: newRecording(),
		ended: make(chan struct{}),
	}
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	if stdout != nil {
		p.cmd.Stdout = stdout
	}
	if stderr != nil {
		p.cmd.Stderr = stderr
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // exitCode tells
	}()
	return p, nil
}

// await waits until pattern has matched what is recorded, of this process, count
// times at least.
func (p *process) await(of *recording, pattern string, count int) error {
	re, err := regexp.Compile("(?m)" + pattern)
	if err != nil {
		return err
	}
	deadline := time.After(patience)
	for {
		text, changed := of.get()
		if len(re.FindAllString(text, count)) >= count {
			return nil
		}
		select {
		case <-changed:
			continue
		case <-p.ended:
			if again, _ := of.get(); again != text {
				continue
			}
			err = errors.New("the process has ended")
		case <-deadline:
			err = fmt.Errorf("nothing new for %v", patience)
		}
		return fmt.Errorf("no %d times %q: %w; standard output:\n%s\nstandard error:\n%s", count, pattern, err, p.stdout, p.stderr)
	}
}

// signal sends sig.
func (p *process) signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// wait waits for the end and returns the exit code as a shell has it: 128 and
// the signal's number, if one has ended the process.
func (p *process) wait() (code int, err error) {
	select {
	case <-p.ended:
	case <-time.After(patience):
		return 0, fmt.Errorf("it still runs after %v; standard output:\n%s\nstandard error:\n%s", patience, p.stdout, p.stderr)
	}
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return p.cmd.ProcessState.ExitCode(), nil
}

// kill ends the process at once.
func (p *process) kill() {
	_ = p.signal(syscall.SIGKILL) // it may have ended
	<-p.ended
}

// sound returns an error if the process has printed what no process should print.
func (p *process) sound() error {
	text := p.stdout.String() + p.stderr.String()
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:", "goroutine 1 ["} {
		if strings.Contains(text, bad) {
			return fmt.Errorf("%v printed %q:\n%s", p.cmd.Args, bad, text)
		}
	}
	return nil
}

// recording is what a process has printed. It is safe for concurrent use.
type recording struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	changed chan struct{} // closed at the next write
}

func newRecording() *recording { return &recording{changed: make(chan struct{})} }

// Write implements [io.Writer].
func (r *recording) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.changed)
	r.changed = make(chan struct{})
	return r.buf.Write(p)
}

// get returns what is recorded, and a channel that is closed when more comes.
func (r *recording) get() (string, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String(), r.changed
}

// String returns what is recorded.
func (r *recording) String() string {
	s, _ := r.get()
	return s
}
