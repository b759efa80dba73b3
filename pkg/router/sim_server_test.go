package router

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"

	"github.com/request-migration/migrate/pkg/stream"
)

// simServerKinds are the breaks that a real server can be told to make.
var simServerKinds = []stream.Kind{
	stream.Truncated, stream.Failed, stream.Overloaded, stream.Draining, stream.Application,
}

// simServers are real servers, one an address, over pipes. Their handlers play
// the scripts. The client keeps its connections and carries one request at a
// time on each, so that one that is cut breaks one stream.
type simServers struct {
	s *sim

	mu      sync.Mutex
	servers map[string]*simServer
	conns   []*simConn
	by      map[string]*simConn // by the request that came last
	serving sync.WaitGroup
}

// simServer is a server and its listener.
type simServer struct {
	stream.Server
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (s *simServer) Accept() (net.Conn, error) {
	select {
	case conn := <-s.conns:
		return conn, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

func (s *simServer) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (s *simServer) closeListener() { s.once.Do(func() { close(s.done) }) }

// simListener is the server's [net.Listener].
type simListener struct{ *simServer }

func (l simListener) Close() error {
	l.closeListener()
	return nil
}

// simConn is a server's end of a connection. A kept one may turn out dead: then
// it ends when the next request comes.
type simConn struct {
	net.Conn
	servers *simServers
	n       int // which of all connections it is

	mu   sync.Mutex
	idle bool // it has answered a request, and has no other
	asks int
}

func (c *simConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	_, id, asks := strings.Cut(string(p[:n]), `"id":"q`)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || !asks {
		return n, err
	}
	id, _, _ = strings.Cut(id, `"`)
	c.servers.mu.Lock()
	c.servers.by["q"+id] = c
	c.servers.mu.Unlock()
	if !c.idle {
		return n, nil
	}
	c.asks++
	if mix(c.servers.s.seed^uint64(c.n)<<8^uint64(c.asks))%3 == 0 {
		c.servers.s.counted("stale connection")
		_ = c.Close() // of a pipe: no error
		return 0, io.EOF
	}
	c.idle = false
	return n, err
}

func newSimServers(s *sim) *simServers {
	return &simServers{s: s, servers: make(map[string]*simServer), by: make(map[string]*simConn)}
}

func (f *simServers) dial(ctx context.Context, addr string) (net.Conn, error) {
	client, server := net.Pipe()
	f.mu.Lock()
	to := f.servers[addr]
	if to == nil {
		to = &simServer{conns: make(chan net.Conn), done: make(chan struct{})}
		to.Handler, to.Admit, to.Resumes = f.handle, f.admit, true
		f.servers[addr] = to
		f.serving.Go(func() { _ = to.Serve(simListener{to}) }) // until it is closed
	}
	c := &simConn{Conn: server, servers: f, n: len(f.conns)}
	f.conns = append(f.conns, c)
	f.mu.Unlock()
	select {
	case to.conns <- c:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// script returns the request's stream, and the connection that it came on.
func (f *simServers) script(req stream.Request) (*visit, *simConn) {
	f.s.mu.Lock()
	q := f.s.requests[req.ID]
	v := q.visits[len(q.visits)-1]
	f.s.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	return v, f.by[req.ID]
}

// admit refuses the requests that the script has refused.
func (f *simServers) admit(req stream.Request) error {
	v, c := f.script(req)
	if v.kind != stream.Overloaded {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = true
	return stream.ErrOverloaded
}

// handle plays the script of the request's stream.
func (f *simServers) handle(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
	v, c := f.script(*req)
	defer func() {
		c.mu.Lock()
		c.idle = true
		c.mu.Unlock()
	}()
	if req.From != v.from {
		f.s.fail("%s: the server is asked for items from %d, want %d", req.ID, req.From, v.from)
	}
	if v.way == WayPrefix {
		f.s.counted("by prefix at a real server")
		if got := joinText(req.Prefix); got != v.prefix {
			f.s.fail("%s: the server is asked to go on behind %q, want %q", req.ID, got, v.prefix)
		}
	}
	err := pause(ctx, v.lag)
	for _, item := range v.items[:v.n] {
		if err == nil {
			err = send(stream.Annotated{Data: stream.String(item)})
		}
		if err == nil {
			err = pause(ctx, v.pace+1)
		}
	}
	if err == nil {
		err = pause(ctx, v.delay+1)
	}
	if err != nil {
		return err
	}
	if v.kind == stream.Truncated {
		_ = c.Close() // of a pipe: no error
		<-ctx.Done()
		return ctx.Err()
	}
	return map[stream.Kind]error{
		stream.Failed:      stream.ErrFailed,
		stream.Draining:    stream.ErrDraining,
		stream.Application: errors.New("no such model"),
	}[v.kind]
}

func (f *simServers) close() {
	for _, s := range f.servers {
		s.Close()
		s.closeListener()
	}
	f.serving.Wait()
}
