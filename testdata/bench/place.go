package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// makeScratch makes the folder for what is needed on disk: programs and stores. end
// removes it.
func (b *bench) makeScratch() (end func() error, err error) {
	b.scratch, err = os.MkdirTemp("", "migrate-bench-")
	return func() error { return os.RemoveAll(b.scratch) }, err
}

// build returns the path of a program of this repository, built once from the
// module in folder.
func (b *bench) build(ctx context.Context, name, folder string) (string, error) {
	path := filepath.Join(b.scratch, name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-tags=grpcnotrace", "-o", path, ".")
	cmd.Dir = folder
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", name, err, out)
	}
	return path, nil
}

// place is where a store is, a directory or an etcd, and the members of one
// endpoint there.
type place struct {
	kind, at string
	members  []*child
	etcd     *exec.Cmd // nil for a directory
	stdin    io.Closer // of etcd, which ends with it
}

// endpointOf is the component in the name of the endpoint that the members of a
// place share.
const endpointOf = "servers"

// newPlace starts a store with so many members.
func (b *bench) newPlace(ctx context.Context, kind string, members int) (p *place, err error) {
	dir, err := os.MkdirTemp(b.scratch, kind+"-")
	if err != nil {
		return nil, err
	}
	p = &place{kind: kind, at: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if kind == onEtcd {
		if err := p.startEtcd(ctx, b, dir); err != nil {
			return nil, fmt.Errorf("starting etcd: %w", err)
		}
	}
	for range members {
		m, err := b.spawn(ctx, "member", kind, endpointOf, p.at)
		if err != nil {
			return nil, err
		}
		p.members = append(p.members, m)
	}
	return p, nil
}

// startEtcd starts an etcd with its data in dir.
func (p *place) startEtcd(ctx context.Context, b *bench, dir string) error {
	program, err := b.build(ctx, "etcd-program", "../etcd")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, "-data-dir", dir)
	// Its warnings are about its own slowness, which is measured here.
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.WaitDelay = time.Second
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.etcd, p.stdin = cmd, stdin
	late := time.AfterFunc(callTimeout, func() { _ = cmd.Process.Kill() }) // or it has just ended
	defer late.Stop()
	url, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		_ = p.close() // which says no more than etcd did
		return fmt.Errorf("%w\n%s", err, said.String())
	}
	p.at = strings.TrimSpace(url)
	return nil
}

// close ends the members and etcd. A directory goes with the scratch folder.
func (p *place) close() error {
	err := together(len(p.members), func(i int) error { return p.members[i].close() })
	p.members = nil
	if p.etcd == nil {
		return err
	}
	late := time.AfterFunc(callTimeout, func() { _ = p.etcd.Process.Kill() }) // or it has just ended
	defer late.Stop()
	err = errors.Join(err, p.stdin.Close(), p.etcd.Wait())
	p.etcd = nil
	return err
}

// spent is what the members of a place and its etcd have spent so far.
type spent struct {
	cpu time.Duration
	// requests are those that etcd has had, without watches and keep-alives, and
	// lists those of them that asked for one.
	requests, lists float64
}

func (p *place) spent(ctx context.Context) (s spent, err error) {
	for _, m := range p.members {
		r, err := m.do(order{Do: "usage"})
		if err != nil {
			return s, err
		}
		s.cpu += r.CPU
	}
	if p.etcd == nil {
		return s, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.at+"/metrics", nil)
	if err != nil {
		return s, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return s, fmt.Errorf("asking for etcd's metrics: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // it has been read
	if err := s.read(resp.Body); err != nil {
		return s, fmt.Errorf("reading etcd's metrics: %w", err)
	}
	return s, nil
}

// read adds what etcd's metrics tell.
func (s *spent) read(metrics io.Reader) error {
	cpu, served := false, false
	lines := bufio.NewScanner(metrics)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		isRequest := strings.HasPrefix(name, "grpc_server_started_total{") &&
			!strings.Contains(name, `grpc_type="bidi_stream"`) // the watches and the keep-alives
		if !isRequest && name != "process_cpu_seconds_total" {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		switch {
		case err != nil:
			return err
		case !isRequest:
			s.cpu += time.Duration(n * float64(time.Second))
			cpu = true
		case strings.Contains(name, `grpc_method="Range`): // or RangeStream
			s.lists += n
			s.requests += n
			served = true
		default:
			s.requests += n
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if !cpu || !served {
		return errors.New("they lack the CPU time or the number of lists")
	}
	return nil
}
