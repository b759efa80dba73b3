package stream_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// patience is how long a test on real sockets waits for what must come. It is
// not a bound under test: those are tested in fake time.
const patience = 30 * time.Second

// serve runs a server on a loopback socket and returns its address.
func serve(tb testing.TB, s *stream.Server) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	serveOn(tb, s, l)
	return l.Addr().String()
}

func serveOn(tb testing.TB, s *stream.Server, l net.Listener) {
	tb.Helper()
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	tb.Cleanup(func() {
		s.Close()
		if err := <-done; !errors.Is(err, stream.ErrClosed) {
			tb.Errorf("Serve returned %v, want ErrClosed", err)
		}
	})
}

// pipeListener is a listener in memory. It works in a synctest bubble.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	close func()
}

func newPipeListener() *pipeListener {
	l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.done) })
	return l
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.close()
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// dial is for Client.Dial.
func (l *pipeListener) dial(ctx context.Context, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.done:
		return nil, errors.New("refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// servePipe runs a server in memory.
func servePipe(tb testing.TB, s *stream.Server) *pipeListener {
	tb.Helper()
	l := newPipeListener()
	serveOn(tb, s, l)
	return l
}

// newClient closes c after the test. On real sockets it widens the bounds.
func newClient(tb testing.TB, c *stream.Client) *stream.Client {
	tb.Helper()
	if c.Dial == nil {
		c.DialTimeout, c.StartTimeout, c.StallTimeout = patience, patience, patience
	}
	tb.Cleanup(c.Close)
	return c
}

// await returns what comes from ch, and fails after patience, in fake time or
// real time.
func await[T any](tb testing.TB, ch <-chan T, what string) T {
	tb.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		tb.Fatalf("waited %v for %s", patience, what)
		panic("not reached")
	}
}

func text(s string) stream.Request { return stream.Request{Data: stream.String(s)} }

// collect returns the characters that an echo server sent, and how it ended.
func collect(tb testing.TB, c *stream.Client, addr string, req stream.Request) (string, error) {
	tb.Helper()
	ctx, cancel := context.WithTimeoutCause(tb.Context(), patience, fmt.Errorf("waited %v for the rest of an answer", patience))
	defer cancel()
	var b strings.Builder
	for a, err := range c.Stream(ctx, addr, req) {
		if err != nil {
			return b.String(), err
		}
		s, ok := a.Text()
		if !ok {
			tb.Errorf("item %s is not a string", a.Data)
		}
		_, char, ok := strings.Cut(s, ", data: ")
		if !ok {
			tb.Errorf("item %q", s)
		}
		b.WriteString(char)
	}
	return b.String(), nil
}

// items returns the data of an answer's items, and how it ended.
func items(ctx context.Context, c *stream.Client, addr string, req stream.Request) ([]string, error) {
	var got []string
	for a, err := range c.Stream(ctx, addr, req) {
		if err != nil {
			return got, err
		}
		got = append(got, string(a.Data))
	}
	return got, nil
}

func echo(name string) *stream.Server {
	return &stream.Server{Handler: stream.Echo(name, 0), Resumes: true}
}

// pipePeer returns a peer of a server that runs in memory.
func pipePeer(tb testing.TB, s *stream.Server) *peer {
	tb.Helper()
	conn, err := servePipe(tb, s).dial(tb.Context(), "")
	if err != nil {
		tb.Fatal(err)
	}
	return newPeer(tb, conn)
}
