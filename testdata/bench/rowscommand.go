package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/request-migration/migrate/pkg/engine/command"
	"github.com/request-migration/migrate/pkg/stream"
)

// pipe is the side that reads a command's output and drops it.
const pipe = "the pipe"

// commandLine is a line of a command's output.
const commandLine = "This is a line of a hundred bytes, its newline among them, as a program may write line after line. \n"

func commands() family {
	return family{
		name: "a command", sides: []string{ours, pipe}, warmups: 1, start: startCommand,
		rows: []row{
			{what: "bytes/s of a command's lines (100 bytes), as items of its handler, against the pipe", metric: "bytes/s", unit: "B/s", against: pipe, bounds: atLeast(0.5, 0.7)},
			{what: "the same, through a server and a client in this process", metric: "bytes/s served", unit: "B/s", against: pipe},
		},
	}
}

// startCommand has cat write lines to a pipe, for a handler and a client, or for
// nobody in particular.
func startCommand(_ context.Context, b *bench, side string) (*runner, error) {
	dir, err := os.MkdirTemp("", "migrate-bench-")
	if err != nil {
		return nil, err
	}
	lines := b.count(2_000_000, 1000)
	file := filepath.Join(dir, "lines")
	err = os.WriteFile(file, bytes.Repeat([]byte(commandLine), lines), 0o600)
	var r *runner
	if err == nil && side == pipe {
		r = pipeRunner(file, lines)
	} else if err == nil {
		r, err = commandRunner(file, lines)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	end := r.close
	r.close = func() error { return errors.Join(end(), os.RemoveAll(dir)) }
	return r, nil
}

// perSecond returns the bytes of so many lines a second.
func perSecond(lines int, took time.Duration) float64 {
	return float64(lines*len(commandLine)) / took.Seconds()
}

func pipeRunner(file string, lines int) *runner {
	run := func() (figures, error) {
		began := time.Now()
		err := throughPipe(file, lines*len(commandLine))
		speed := perSecond(lines, time.Since(began))
		return figures{"bytes/s": speed, "bytes/s served": speed}, err
	}
	return &runner{run, func() error { return nil }}
}

func commandRunner(file string, lines int) (*runner, error) {
	engine, err := command.New(command.Config{Args: []string{"cat", file}})
	if err != nil {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		engine.Close()
		return nil, err
	}
	server, client, served := &stream.Server{Handler: engine.Handle}, &stream.Client{}, make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	run := func() (figures, error) {
		handled, err := throughHandler(engine.Handle, lines)
		asked, err2 := throughClient(client, l.Addr().String(), lines)
		return figures{"bytes/s": perSecond(lines, handled), "bytes/s served": perSecond(lines, asked)}, errors.Join(err, err2)
	}
	end := func() error {
		client.Close()
		server.Close()
		engine.Close()
		if err := <-served; !errors.Is(err, stream.ErrClosed) {
			return err
		}
		return nil
	}
	return &runner{run, end}, nil
}

func throughPipe(file string, size int) error {
	cmd := exec.Command("cat", file)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	n, buf := 0, make([]byte, 64<<10)
	for {
		m, err := out.Read(buf)
		n += m
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return errors.Join(err, cmd.Wait())
		}
	}
	if n != size {
		err = fmt.Errorf("%d bytes came, want %d", n, size)
	}
	return errors.Join(err, cmd.Wait())
}

func throughHandler(h stream.Handler, lines int) (time.Duration, error) {
	n, began := 0, time.Now()
	err := h(context.Background(), &stream.Request{Data: stream.String("x")}, func(stream.Annotated) error {
		n++
		return nil
	})
	if err == nil && n != lines {
		err = fmt.Errorf("%d items came, want %d", n, lines)
	}
	return time.Since(began), err
}

func throughClient(c *stream.Client, addr string, lines int) (time.Duration, error) {
	n, began := 0, time.Now()
	for _, err := range c.Stream(context.Background(), addr, stream.Request{Data: stream.String("x")}) {
		if err != nil {
			return time.Since(began), err
		}
		n++
	}
	if n != lines {
		return time.Since(began), fmt.Errorf("%d items came, want %d", n, lines)
	}
	return time.Since(began), nil
}
