package kubetest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
)

// A process is one run of a program.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when it is gone
}

// startProcess runs args until ctx ends, and appends its log to the file at logPath.
func startProcess(ctx context.Context, args []string, logPath string) (*process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own
	p := &process{cmd: exec.CommandContext(ctx, args[0], args[1:]...), exited: make(chan struct{})}
	p.cmd.Stderr, p.cmd.Stdout = log, log
	dieWithParent(p.cmd)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // how it ended is in its log
	}()
	return p, nil
}

// kill ends the process and returns when it is gone. It does nothing if the process has
// ended or was never started.
func (p *process) kill() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill() // fails only if it has ended
	<-p.exited
}

// tail returns the end of a log, which has the cause.
func tail(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s:\n%s", path, bytes.TrimSpace(content[max(0, len(content)-4096):]))
}
