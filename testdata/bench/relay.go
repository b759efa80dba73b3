package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// relay passes TCP connections on and counts the bytes, both ways. Its methods
// are safe for concurrent use.
type relay struct {
	l     net.Listener
	to    string
	bytes atomic.Int64
	wg    sync.WaitGroup

	mu    sync.Mutex // guards conns
	conns []net.Conn // both sides of every connection; nobody removes one
}

func newRelay(ctx context.Context, to string) (*relay, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting a relay: %w", err)
	}
	r := &relay{l: l, to: to}
	r.wg.Go(r.accept)
	return r, nil
}

func (r *relay) accept() {
	var d net.Dialer
	for {
		near, err := r.l.Accept()
		if err != nil {
			return // it is closed
		}
		far, err := d.DialContext(context.Background(), "tcp", r.to)
		if err != nil {
			near.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, near, far)
		r.mu.Unlock()
		for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
			r.wg.Go(func() {
				_, _ = io.Copy(counted{way[0], r}, way[1]) // its end is the connection's
				way[0].Close()
				way[1].Close()
			})
		}
	}
}

// counted counts what is written. It hides what would let io.Copy pass by it.
type counted struct {
	w io.Writer
	r *relay
}

func (c counted) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.r.bytes.Add(int64(n))
	return n, err
}

func (r *relay) close() {
	r.l.Close()
	r.mu.Lock()
	for _, c := range r.conns {
		c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}
