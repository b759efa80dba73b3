package etcdtest

import (
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// A Proxy is between one client and one server, and can cut them off from each other like
// a broken network: no connection closes, and nothing gets through.
//
// A Proxy is safe for concurrent use.
type Proxy struct {
	listener net.Listener
	scheme   string
	target   string
	ctx      context.Context // ended by close
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	bytes    atomic.Int64 // carried, both ways

	mu    sync.Mutex
	gate  chan struct{} // closed while traffic flows
	conns map[net.Conn]struct{}
}

// StartProxy runs a proxy to the server until the test ends.
func StartProxy(tb testing.TB, s *Server) *Proxy {
	tb.Helper()
	scheme, _, _ := strings.Cut(s.Endpoint(), "://")
	return StartProxyTo(tb, scheme, s.address())
}

// StartProxyTo runs a proxy to a server of any kind, at host:port, until the test ends.
func StartProxyTo(tb testing.TB, scheme, address string) *Proxy {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		cancel()
		tb.Fatal(err)
	}
	p := &Proxy{
		listener: listener,
		scheme:   scheme,
		target:   address,
		ctx:      ctx,
		cancel:   cancel,
		gate:     make(chan struct{}),
		conns:    make(map[net.Conn]struct{}),
	}
	close(p.gate)
	p.wg.Go(p.accept)
	tb.Cleanup(p.close)
	return p
}

// Endpoint returns the URL that reaches the server through the proxy.
func (p *Proxy) Endpoint() string { return p.scheme + "://" + p.listener.Addr().String() }

// Bytes returns how many bytes the proxy has carried so far, both ways.
func (p *Proxy) Bytes() int64 { return p.bytes.Load() }

// Cut cuts the two sides off from each other. Bytes that they send meanwhile arrive after
// Heal, as TCP retransmits them.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate = make(chan struct{})
}

// Heal undoes Cut.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.gate)
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed with the test
		}
		p.wg.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	defer p.forget(client)
	if !p.keep(client) || !p.pass() {
		return
	}
	server, err := new(net.Dialer).DialContext(p.ctx, "tcp", p.target)
	if err != nil {
		return // the client sees a closed connection
	}
	defer p.forget(server)
	if !p.keep(server) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.copy(server, client) })
	both.Go(func() { p.copy(client, server) })
	both.Wait()
}

// copy copies bytes one way until that side ends, then ends the connection.
func (p *Proxy) copy(dst, src net.Conn) {
	defer func() { _, _ = dst.Close(), src.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if !p.pass() {
			return
		}
		p.bytes.Add(int64(n))
		if _, werr := dst.Write(buf[:n]); werr != nil || err != nil {
			return
		}
	}
}

// pass waits until traffic flows. It returns false if the test has ended.
func (p *Proxy) pass() bool {
	p.mu.Lock()
	gate := p.gate
	p.mu.Unlock()
	select {
	case <-gate:
		return true
	case <-p.ctx.Done():
		return false
	}
}

func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.ctx.Done():
		return false
	default:
		p.conns[c] = struct{}{}
		return true
	}
}

func (p *Proxy) forget(c net.Conn) {
	_ = c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *Proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.cancel()
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}
