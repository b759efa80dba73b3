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

// makeScratch makes the folder for what the growth laws need on disk: programs
// and stores. end removes it.
func (b *bench) makeScratch() (end func() error, err error) {
	b.scratch, err = os.MkdirTemp("", "migrate-growth-")
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

// usage returns the CPU time that the members have used, and etcd.
func (p *place) usage() (all time.Duration, err error) {
	for _, m := range p.members {
		r, err := m.do(order{Do: "usage"})
		if err != nil {
			return 0, err
		}
		all += r.CPU
	}
	if p.etcd == nil {
		return all, nil
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.etcd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("asking for etcd's CPU time: %w", err)
	}
	// The program's name, in brackets, may have spaces. The 14th and 15th fields
	// are the ticks in user and system mode, of which Linux has 100 a second.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("asking for etcd's CPU time: /proc says %q", stat)
	}
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return all + time.Duration(user+system)*10*time.Millisecond, errors.Join(err1, err2)
}

// requests returns how many requests etcd has had so far, and how many of them
// were for a list.
func (p *place) requests(ctx context.Context) (all, lists float64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.at+"/metrics", nil)
	if err != nil {
		return 0, 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, 0, fmt.Errorf("asking for etcd's metrics: %w", err)
	}
	defer resp.Body.Close()
	found := false
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		// Streams in both directions are the watches and the keep-alives.
		if !strings.HasPrefix(name, "grpc_server_started_total{") || strings.Contains(name, `grpc_type="bidi_stream"`) {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("reading etcd's metrics: %w", err)
		}
		all += n
		if strings.Contains(name, `grpc_method="Range`) { // or RangeStream
			lists, found = lists+n, true
		}
	}
	if err := lines.Err(); err != nil {
		return 0, 0, fmt.Errorf("reading etcd's metrics: %w", err)
	}
	if !found {
		return 0, 0, errors.New("etcd's metrics don't tell how many lists it was asked for")
	}
	return all, lists, nil
}
