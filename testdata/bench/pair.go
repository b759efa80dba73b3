package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
)

// pair is the processes of one side: its servers, and a client to them.
type pair struct {
	servers []*child
	client  *child
}

// startPair starts so many server processes with so many listeners each, and a
// client that knows them all.
func (b *bench) startPair(ctx context.Context, side string, servers, listeners int) (*pair, error) {
	p, addrs, err := b.startServers(ctx, side, servers, listeners)
	if err != nil {
		return nil, err
	}
	if p.client, err = b.spawn(ctx, "client", side, "client", addrs...); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// startServers starts a pair without its client.
func (b *bench) startServers(ctx context.Context, side string, servers, listeners int) (p *pair, addrs []string, err error) {
	p = &pair{}
	for i := range servers {
		c, err := b.spawn(ctx, "server", side, fmt.Sprintf("server%d", i+1))
		if err != nil {
			return nil, nil, errors.Join(err, p.close())
		}
		p.servers = append(p.servers, c)
		r, err := c.do(order{Do: "listen", N: listeners})
		if err != nil {
			return nil, nil, errors.Join(err, p.close())
		}
		addrs = append(addrs, r.Addrs...)
	}
	return p, addrs, nil
}

// close ends the client, then the servers.
func (p *pair) close() error {
	var err error
	if p.client != nil {
		err = p.client.close()
	}
	for _, s := range p.servers {
		err = errors.Join(err, s.close())
	}
	return err
}

// job lets the client do j. To its figures come "CPU", the time that client and
// servers have used meanwhile in microseconds, and "CPU an item".
func (p *pair) job(j job) (figures, reply, error) {
	before, err := p.usage()
	if err != nil {
		return nil, reply{}, err
	}
	r, err := p.client.do(order{Do: "job", Job: j, For: j.For})
	if err != nil {
		return nil, reply{}, err
	}
	after, err := p.usage()
	if err != nil {
		return nil, reply{}, err
	}
	f := figures{"CPU": after - before}
	maps.Copy(f, r.Figures)
	if n := f["items"]; n > 0 {
		f["CPU an item"] = f["CPU"] / n
	}
	return f, r, nil
}

// usage returns the CPU time that client and servers have used, in microseconds.
func (p *pair) usage() (float64, error) {
	sum := 0.0
	for _, c := range append([]*child{p.client}, p.servers...) {
		r, err := c.do(order{Do: "usage"})
		if err != nil {
			return 0, err
		}
		sum += micros(r.CPU)
	}
	return sum, nil
}

// runs returns a runner that does the same job again and again.
func (p *pair) runs(j job) *runner {
	return &runner{
		run: func() (figures, error) {
			f, _, err := p.job(j)
			return f, err
		},
		close: p.close,
	}
}

// jobs returns the start of a family whose sides do one job, to one server.
func jobs(job func(b *bench) job) func(context.Context, *bench, string) (*runner, error) {
	return func(ctx context.Context, b *bench, side string) (*runner, error) {
		p, err := b.startPair(ctx, side, 1, 1)
		if err != nil {
			return nil, err
		}
		return p.runs(job(b)), nil
	}
}
