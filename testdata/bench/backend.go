package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// quietBeforeBreak is how long a server waits before it closes its sockets, so
// that the item before the break has arrived and the client waits for the next.
const quietBeforeBreak = 2 * time.Millisecond

// backend is what the servers of all sides have in common: the items they
// answer with, and the breaks. It is safe for concurrent use.
type backend struct {
	name string

	mu     sync.Mutex
	conns  map[*net.TCPConn]struct{} // accepted since the last break
	broken map[int]int64             // when each trial's break was, Unix nanoseconds
}

func newBackend(name string) *backend {
	return &backend{name: name, conns: make(map[*net.TCPConn]struct{}), broken: make(map[int]int64)}
}

// sink is how a side sends items. Both methods do the side's own work, from what
// the handler has to what the wire takes.
type sink interface {
	// plain sends the item that was made beforehand.
	plain() error
	// text sends an item that reads s.
	text(s string) error
}

// answer does what a asks for.
func (b *backend) answer(ctx context.Context, a ask, out sink) error {
	switch {
	case a.mode == paced:
		return b.paced(ctx, a, out)
	case a.mode == hold:
		if err := out.plain(); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	case a.mode == breaks && a.from == 0:
		if err := out.plain(); err != nil {
			return err
		}
		time.Sleep(quietBeforeBreak)
		b.closeSockets(a.trial)
		return errors.New("the sockets are closed")
	}
	for range a.items - a.from {
		if err := out.plain(); err != nil {
			return err
		}
	}
	return nil
}

// paced sends an item, waits for a period, and so on. Streams that begin
// together are out of step from the first item on.
func (b *backend) paced(ctx context.Context, a ask, out sink) error {
	t := time.NewTimer(rand.N(a.period))
	defer t.Stop()
	for range a.items {
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := out.text(stamped(b.name, time.Now())); err != nil {
			return err
		}
		t.Reset(a.period)
	}
	return nil
}

// listen returns a loopback listener whose sockets closeSockets closes.
func (b *backend) listen() (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return recording{l, b}, nil
}

// recording is a listener that notes what it accepts.
type recording struct {
	net.Listener
	b *backend
}

func (r recording) Accept() (net.Conn, error) {
	conn, err := r.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		r.b.mu.Lock()
		defer r.b.mu.Unlock()
		r.b.conns[tcp] = struct{}{}
	}
	return conn, err
}

// closeSockets closes every connection under the server's feet, and notes when.
func (b *backend) closeSockets(trial int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.broken[trial] = time.Now().UnixNano()
	for conn := range b.conns {
		// The FIN first: Close alone waits for whoever reads the connection
		// to notice, which is not the same on all sides.
		_ = conn.CloseWrite() // one that is closed already is no matter
		_ = conn.Close()
	}
	clear(b.conns)
}

// takeBroken returns when the breaks since the last call were.
func (b *backend) takeBroken() map[int]int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	broken := b.broken
	b.broken = make(map[int]int64)
	return broken
}
