package etcdtest

import (
	"bufio"
	"context"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
)

// A process is one run of the etcd program.
type process struct {
	cmd    *exec.Cmd
	stdin  io.Closer     // its end is the end of the program, should the test die
	ready  chan struct{} // closed when it has printed its address
	exited chan struct{} // closed when it is gone
}

// startProcess runs args until ctx ends, and appends its log to the file at logPath.
func startProcess(ctx context.Context, args []string, logPath string) (*process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own

	p := &process{
		cmd:    exec.CommandContext(ctx, args[0], args[1:]...),
		ready:  make(chan struct{}),
		exited: make(chan struct{}),
	}
	p.cmd.Stderr = log
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go p.follow(stdout)
	return p, nil
}

// follow runs until the process ends. kill waits for it.
func (p *process) follow(stdout io.Reader) {
	defer close(p.exited)
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err == nil {
		close(p.ready)
	}
	_, _ = io.Copy(io.Discard, stdout)
	_ = p.cmd.Wait() // how it ended is in its log
}

// kill ends the process and returns when it is gone. It does nothing if the process has
// ended or was never started.
func (p *process) kill() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill() // fails only if it has ended
	_ = p.stdin.Close()
	<-p.exited
}

// randomPort returns a port between 20000 and 32000.
func randomPort() int { return 20000 + rand.IntN(12000) }
