// Package streamtest has a network in memory, so that a test runs real servers and clients
// without a socket: the protocol, pings, credit and breaks are those of a real connection,
// a port is never taken, and within testing/synctest pauses and timeouts take no time.
//
// A [Network] gives a server its listener, and a client its Dial:
//
//	var network streamtest.Network
//	go server.Serve(network.Listen("a:1"))
//	client := &stream.Client{Dial: network.Dial}
//
// A server that also registers takes the listener as the Listener of its server.Config.
// To test what is above the wire alone, without a server, use
// [github.com/request-migration/migrate/pkg/router/routertest].
package streamtest

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
)

// A Network connects clients with the listeners of one process, by address. The zero value
// has no listener. It is safe for concurrent use.
//
// Its connections are like those of TCP: they have deadlines, and a buffer of 64 KiB in
// each direction, so that two ends may both write before they read; who closes one with
// something left to read, or after SetLinger(0), resets it.
type Network struct {
	mu        sync.Mutex // guards what follows
	listeners map[string]*listener
	dials     int // so far, for the clients' addresses
}

// Listen listens at an address, which may be any text; a record wants HOST:PORT. It panics
// if somebody listens there already. Close the listener to make it free.
func (n *Network) Listen(addr string) net.Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[addr] != nil {
		panic("streamtest: somebody listens at " + addr + " already")
	}
	if n.listeners == nil {
		n.listeners = make(map[string]*listener)
	}
	l := &listener{network: n, addr: address(addr), conns: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[addr] = l
	return l
}

// Dial connects to a listener, and waits until it accepts or ctx ends. It is refused
// ([syscall.ECONNREFUSED]) if nobody listens at addr, as by a machine whose server is gone.
// It has the form of [github.com/request-migration/migrate/pkg/stream.Client]'s Dial.
func (n *Network) Dial(ctx context.Context, addr string) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: address(addr), Err: err}
	}
	n.mu.Lock()
	l := n.listeners[addr]
	n.dials++
	client := address(fmt.Sprintf("client:%d", n.dials))
	n.mu.Unlock()
	if l == nil {
		return fail(syscall.ECONNREFUSED)
	}
	near, far := pipe(client, address(addr))
	select {
	case l.conns <- far:
		return near, nil
	case <-l.closed:
		return fail(syscall.ECONNREFUSED)
	case <-ctx.Done():
		return fail(context.Cause(ctx))
	}
}

// network is the name of a [Network], for [net.Addr].
const network = "memory"

type address string

func (address) Network() string  { return network }
func (a address) String() string { return string(a) }

type listener struct {
	network *Network
	addr    address
	conns   chan net.Conn
	once    sync.Once
	closed  chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: network, Addr: l.addr, Err: net.ErrClosed}
	}
}

func (l *listener) Close() error {
	err := error(&net.OpError{Op: "close", Net: network, Addr: l.addr, Err: net.ErrClosed})
	l.once.Do(func() {
		err = nil
		close(l.closed)
		l.network.mu.Lock()
		defer l.network.mu.Unlock()
		if l.network.listeners[string(l.addr)] == l {
			delete(l.network.listeners, string(l.addr))
		}
	})
	return err
}

func (l *listener) Addr() net.Addr { return l.addr }
