package stream_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// peer is a scripted end of a connection.
type peer struct {
	net.Conn
	tb testing.TB
	r  *bufio.Reader
}

func newPeer(tb testing.TB, conn net.Conn) *peer {
	tb.Helper()
	tb.Cleanup(func() { conn.Close() })
	return &peer{Conn: conn, tb: tb, r: bufio.NewReader(conn)}
}

// dialPeer connects to a server as a person with nc does.
func dialPeer(tb testing.TB, addr string) *peer {
	tb.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		tb.Fatal(err)
	}
	return newPeer(tb, conn)
}

// say sends lines.
func (p *peer) say(lines ...string) {
	for _, line := range lines {
		if _, err := io.WriteString(p, line+"\n"); err != nil {
			return // the other end has heard enough
		}
	}
}

// line returns the next line, or how the connection ended, or that neither
// came.
func (p *peer) line() string {
	wait := time.Hour // in fake time, far beyond all bounds
	if _, ok := p.Conn.(*net.TCPConn); ok {
		wait = patience
	}
	_ = p.SetReadDeadline(time.Now().Add(wait)) // fails if it is closed, which the next line says
	line, err := p.r.ReadString('\n')
	_ = p.SetReadDeadline(time.Time{})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Sprintf("nothing but %q for %v", line, wait)
	}
	if err != nil {
		return fmt.Sprintf("%q, %v", line, err)
	}
	return strings.TrimSuffix(line, "\n")
}

// expect checks which lines come next.
func (p *peer) expect(want ...string) {
	p.tb.Helper()
	for _, w := range want {
		if got := p.line(); got != w {
			p.tb.Fatalf("got line %s, want %s", got, w)
		}
	}
}

// expectEOF checks that the other end has closed the connection.
func (p *peer) expectEOF() {
	p.tb.Helper()
	if got, want := p.line(), fmt.Sprintf("%q, %v", "", io.EOF); got != want {
		p.tb.Fatalf("got %s, want EOF", got)
	}
}

// asked is a client's line as a scripted server sees it.
type asked struct {
	Stream int
	ID     string
	Event  string
	Data   json.RawMessage
	From   int
}

// request reads lines until a request.
func (p *peer) request() (asked, bool) {
	for {
		line, err := p.r.ReadBytes('\n')
		if err != nil {
			return asked{}, false
		}
		var a asked
		if err := json.Unmarshal(line, &a); err != nil {
			p.tb.Errorf("client sent %q: %v", line, err)
		}
		if a.Event == "" {
			return a, true
		}
	}
}

// hold reads until the client closes the connection.
func (p *peer) hold() { _, _ = io.Copy(io.Discard, p.r) }

// scripted returns a Dial that connects to scripted servers in memory, one
// script for each connection, which is closed after it.
func scripted(tb testing.TB, scripts ...func(p *peer)) func(context.Context, string) (net.Conn, error) {
	tb.Helper()
	var mu sync.Mutex
	var running sync.WaitGroup
	tb.Cleanup(running.Wait)
	return func(context.Context, string) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		if len(scripts) == 0 {
			return nil, errors.New("refused")
		}
		script := scripts[0]
		scripts = scripts[1:]
		ours, theirs := net.Pipe()
		running.Go(func() {
			defer theirs.Close()
			script(newPeer(tb, theirs))
		})
		return ours, nil
	}
}

// listen runs a script for every connection to a loopback socket.
func listen(tb testing.TB, script func(p *peer)) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var scripts sync.WaitGroup
	scripts.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			scripts.Go(func() {
				defer conn.Close()
				script(newPeer(tb, conn))
			})
		}
	})
	tb.Cleanup(func() {
		l.Close()
		scripts.Wait()
	})
	return l.Addr().String()
}
