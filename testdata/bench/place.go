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

// place is where a store is, a directory or an etcd, and the members there.
type place struct {
	b        *bench
	kind, at string
	members  []*child
	etcd     *exec.Cmd // nil for a directory
	stdin    io.Closer // of etcd, which ends with it
}

func (b *bench) newPlace(ctx context.Context, kind string) (*place, error) {
	dir, err := os.MkdirTemp(b.scratch, kind+"-")
	if err != nil {
		return nil, err
	}
	if kind == onFile {
		return &place{b: b, kind: kind, at: dir}, nil
	}
	program, err := b.build(ctx, "etcd-program", "../etcd")
	if err != nil {
		return nil, err
	}
	p := &place{b: b, kind: kind, etcd: exec.CommandContext(ctx, program, "-data-dir", dir)}
	// Its warnings are about its own slowness, which is measured here.
	var said bytes.Buffer
	p.etcd.Stderr = &said
	p.etcd.WaitDelay = time.Second
	if p.stdin, err = p.etcd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("starting etcd: %w", err)
	}
	stdout, err := p.etcd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting etcd: %w", err)
	}
	if err := p.etcd.Start(); err != nil {
		return nil, fmt.Errorf("starting etcd: %w", err)
	}
	late := time.AfterFunc(callTimeout, func() { _ = p.etcd.Process.Kill() }) // or it has just ended
	defer late.Stop()
	url, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("starting etcd: %w\n%s", errors.Join(err, p.close()), said.String())
	}
	p.at = strings.TrimSpace(url)
	return p, nil
}

// member starts a member of an endpoint, which ends with the place at the latest.
// It finds the store at an address that may be a relay's.
func (p *place) member(ctx context.Context, endpoint, at string) (*child, error) {
	m, err := p.b.spawn(ctx, "member", p.kind, endpoint, at)
	if err == nil {
		p.members = append(p.members, m)
	}
	return m, err
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
	return errors.Join(err, p.stdin.Close(), p.etcd.Wait())
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

// lists returns how many lists etcd has been asked for.
func (p *place) lists(ctx context.Context) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.at+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("asking for etcd's metrics: %w", err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if strings.HasPrefix(name, "grpc_server_started_total{") && strings.Contains(name, `grpc_method="Range"`) {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, errors.New("etcd's metrics don't tell how many lists it was asked for")
}
