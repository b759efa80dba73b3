package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// childWord makes the program a child: PROGRAM child KIND SIDE NAME PROFILE.
const childWord = "child"

// callTimeout is how long a child may take for an order, beyond what the order
// says. It is long because it only keeps a mistake from waiting for ever.
const callTimeout = 60 * time.Second

// order is what the parent tells a child to do.
type order struct {
	Do   string
	Job  job           // of a client
	N    int           // of listen: how many servers
	For  time.Duration // how long it takes by intention
	Grow grow          // of a member
}

// reply is what a child answers.
type reply struct {
	Err       string
	Addrs     []string           // of listen
	Figures   figures            // of a job
	Times     map[int]int64      // by trial, Unix nanoseconds
	CPU       time.Duration      // of usage: what the process has used
	Allocated uint64             // of a member's usage: bytes, so far
	Memory    map[string]float64 // of memory: bytes, by kind
}

// child is a process of this program that serves or asks. It is for one
// goroutine.
type child struct {
	what  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	enc   *json.Encoder
	dec   *json.Decoder
}

// spawn starts a child. It is killed when ctx ends, and ends by itself when its
// standard input does, so that it never outlives this process.
func (b *bench) spawn(ctx context.Context, kind, side, name string, addrs ...string) (*child, error) {
	profile := ""
	if b.profiles != "" {
		file := strings.ReplaceAll(b.family+"-"+side+"-"+name+".pprof", " ", "-")
		profile = filepath.Join(b.profiles, file)
	}
	c := &child{what: kind + " of " + side}
	args := append([]string{childWord, kind, side, name, profile}, addrs...)
	c.cmd = exec.CommandContext(ctx, b.program, args...)
	c.cmd.Stderr = b.stderr
	c.cmd.WaitDelay = time.Second
	var err error
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("starting the %s: %w", c.what, err)
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting the %s: %w", c.what, err)
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the %s: %w", c.what, err)
	}
	c.enc, c.dec = json.NewEncoder(c.stdin), json.NewDecoder(stdout)
	return c, nil
}

// do gives an order and waits for the answer.
func (c *child) do(o order) (reply, error) {
	late := time.AfterFunc(callTimeout+o.For, func() { _ = c.cmd.Process.Kill() }) // or it has just ended
	defer late.Stop()
	var r reply
	err := c.enc.Encode(o)
	if err == nil {
		err = c.dec.Decode(&r)
	}
	switch {
	case err != nil:
		return r, fmt.Errorf("%s: %s: no answer: %w", c.what, o.Do, err)
	case r.Err != "":
		return r, fmt.Errorf("%s: %s: %s", c.what, o.Do, r.Err)
	}
	return r, nil
}

// close ends the child and waits for it.
func (c *child) close() error {
	// Should this not reach it, it is killed.
	_ = c.stdin.Close()
	late := time.AfterFunc(callTimeout, func() { _ = c.cmd.Process.Kill() }) // or it has just ended
	defer late.Stop()
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w", c.what, err)
	}
	return nil
}

// runChild is main in a child: args are those after the program's name.
func runChild(args []string, stdin io.Reader, stdout io.Writer) (err error) {
	if len(args) < 5 {
		return errors.New("child: want a kind, a side, a name and a profile")
	}
	kind, side, name, profile, addrs := args[1], args[2], args[3], args[4], args[5:]
	stop, err := startProfile(profile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	w, err := newWorker(kind, side, name, addrs)
	if err != nil {
		return err
	}
	defer w.close()
	enc, dec := json.NewEncoder(stdout), json.NewDecoder(stdin)
	for {
		var o order
		if err := dec.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading an order: %w", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout+o.For)
		r, err := w.do(ctx, o)
		cancel()
		if err != nil {
			r.Err = err.Error()
		}
		if err := enc.Encode(r); err != nil {
			return fmt.Errorf("answering an order: %w", err)
		}
	}
}

// worker is what a child is: a server, a client, a proxy or a member.
type worker interface {
	do(context.Context, order) (reply, error)
	close()
}

func newWorker(kind, side, name string, addrs []string) (worker, error) {
	switch kind {
	case "server":
		return &serving{side: side, b: newBackend(name)}, nil
	case "proxy":
		return newProxying(addrs[0])
	case "member":
		return newMember(side, name, addrs[0])
	}
	return newAsking(side, addrs)
}

// program returns the path of this program.
func program() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding this program, to start it again: %w", err)
	}
	return path, nil
}
