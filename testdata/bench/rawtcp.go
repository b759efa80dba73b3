package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
)

// rawChunk is what the raw server writes at a time, and its client reads.
const rawChunk = 64 << 10

// tailSize is more than a line.
const tailSize = 64

// rawServer is the limit: it writes lines that were made beforehand, and knows
// no streams, no ends and no errors.
type rawServer struct {
	b    *backend
	l    net.Listener
	line []byte
}

func newRawServer(b *backend, l net.Listener) *rawServer {
	return &rawServer{b: b, l: l, line: []byte(`{"data":"` + text(b.name) + "\"}\n")}
}

func (s *rawServer) serve() error {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := s.l.Accept()
		if err != nil {
			return err
		}
		conns.Go(func() { s.answer(conn) })
	}
}

// close ends serve once the clients have closed their connections.
func (s *rawServer) close() { s.l.Close() }

// answer serves a connection until it ends: a line asks, and lines answer.
func (s *rawServer) answer(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	perChunk := rawChunk / len(s.line)
	chunk := bytes.Repeat(s.line, perChunk)
	for {
		question, err := r.ReadString('\n')
		if err != nil {
			return
		}
		a, err := parseAsk(strings.TrimSuffix(question, "\n"))
		if err != nil {
			return
		}
		if a.mode != plain {
			if s.b.answer(context.Background(), a, rawSink{conn, s.line}) != nil {
				return
			}
			continue
		}
		for left := a.items - a.from; left > 0; left -= perChunk {
			if _, err := conn.Write(chunk[:min(left, perChunk)*len(s.line)]); err != nil {
				return
			}
		}
	}
}

type rawSink struct {
	conn net.Conn
	line []byte
}

func (s rawSink) plain() error {
	_, err := s.conn.Write(s.line)
	return err
}

func (s rawSink) text(string) error { return errors.New("raw TCP sends the same line always") }

// rawCaller is a connection to each server. Unlike other callers it is for one
// goroutine, and hands over no items but the last.
type rawCaller struct {
	addrs []string
	conns []net.Conn // nil where there is none
	turn  int        // the server that is asked next
	buf   []byte
	tail  []byte // what came last; a line at least
}

func newRawCaller(addrs []string) (*rawCaller, error) {
	c := &rawCaller{addrs: addrs, conns: make([]net.Conn, len(addrs)), buf: make([]byte, rawChunk)}
	return c, c.connect(context.Background())
}

// connect makes the connections that are missing.
func (c *rawCaller) connect(ctx context.Context) error {
	var d net.Dialer
	for i := range c.conns {
		if c.conns[i] != nil {
			continue
		}
		conn, err := d.DialContext(ctx, "tcp", c.addrs[i])
		if err != nil {
			return err
		}
		c.conns[i] = conn
	}
	return nil
}

// stream reads the answer from one server after the other. When a connection
// ends it asks the next one for what is missing, over a connection that stands:
// no client can be sooner.
func (c *rawCaller) stream(ctx context.Context, a ask, each func(int, item)) error {
	if err := c.connect(ctx); err != nil {
		return err
	}
	for range c.conns {
		conn := c.conns[c.turn]
		got, err := c.count(conn, a)
		if a.from += got; got > 0 {
			each(got, item{text: lineText(c.tail)})
		}
		if !errors.Is(err, io.EOF) {
			c.turn = (c.turn + 1) % len(c.conns)
			return err
		}
		conn.Close()
		c.conns[c.turn] = nil
		c.turn = (c.turn + 1) % len(c.conns)
	}
	return fmt.Errorf("no server has answered in full: %d items of %d came", a.from, a.items)
}

// count asks and counts newlines until all have come, and returns how many did.
func (c *rawCaller) count(conn net.Conn, a ask) (n int, err error) {
	if _, err := io.WriteString(conn, a.String()+"\n"); err != nil {
		return 0, err
	}
	for n < a.items-a.from {
		m, err := conn.Read(c.buf)
		n += bytes.Count(c.buf[:m], []byte{'\n'})
		c.tail = append(c.tail, c.buf[max(0, m-tailSize):m]...)
		c.tail = append(c.tail[:0], c.tail[max(0, len(c.tail)-tailSize):]...)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// lineText returns the string in the last line of lines.
func lineText(lines []byte) string {
	i := bytes.LastIndexByte(lines, '{')
	s := bytes.TrimPrefix(lines[max(i, 0):], []byte(`{"data":"`))
	return string(bytes.TrimSuffix(s, []byte("\"}\n")))
}

func (c *rawCaller) close() error {
	for _, conn := range c.conns {
		if conn != nil {
			conn.Close()
		}
	}
	return nil
}
