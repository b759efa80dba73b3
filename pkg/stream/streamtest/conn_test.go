package streamtest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"
)

// connected returns the two ends of a connection that was dialled.
func connected(t *testing.T) (client, server net.Conn) {
	t.Helper()
	var n Network
	l := n.Listen("a:1")
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, _ := l.Accept() // a failure shows in the dial
		accepted <- conn
	}()
	client, err := n.Dial(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return client, <-accepted
}

// A connection is one as the net package describes it, deadlines included.
func TestConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		c1, c2 = connected(t)
		return c1, c2, func() { c1.Close(); c2.Close() }, nil
	})
}

// Deadlines pass to the nanosecond in fake time, and what was written before stays.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := connected(t)
		defer server.Close()
		defer client.Close()
		began := time.Now()
		if err := client.SetDeadline(began.Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := client.Write(make([]byte, bufferSize+1))
		if n != bufferSize || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("a write that nobody reads: %d bytes after %v, %v", n, time.Since(began), err)
		}
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a read after the deadline: %v", err)
		}
		if err := client.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = server.Write([]byte("x")) }() // the read shows it
		if n, err := client.Read(make([]byte, 2)); n != 1 || err != nil {
			t.Errorf("a read once the deadline is gone: %d, %v", n, err)
		}
		// A deadline that is moved counts from its new time.
		for _, d := range []time.Duration{time.Hour, time.Minute, time.Second} {
			if err := client.SetReadDeadline(time.Now().Add(d)); err != nil {
				t.Fatal(err)
			}
		}
		began = time.Now()
		var timeout net.Error
		if _, err := client.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(began) != time.Second {
			t.Errorf("a read with a deadline of a second: %v after %v", err, time.Since(began))
		}
	})
}

// Both ends may write before they read, as on a socket.
func TestBuffered(t *testing.T) {
	client, server := connected(t)
	defer client.Close()
	defer server.Close()
	for _, c := range []net.Conn{client, server} {
		if n, err := c.Write(bytes.Repeat([]byte("x"), bufferSize)); n != bufferSize || err != nil {
			t.Fatal(n, err)
		}
	}
}

// What the other end sees of an end is what a socket would show.
func TestEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		sent string // to the end that closes
		end  func(net.Conn) error
		want error
	}{
		"close":             {"", net.Conn.Close, io.EOF},
		"close with unread": {"unread", net.Conn.Close, syscall.ECONNRESET},
		"half close":        {"unread", func(c net.Conn) error { return c.(*conn).CloseWrite() }, io.EOF},
		"reset": {"", func(c net.Conn) error {
			return errors.Join(c.(*conn).SetLinger(0), c.Close())
		}, syscall.ECONNRESET},
	} {
		t.Run(name, func(t *testing.T) {
			client, server := connected(t)
			defer client.Close()
			defer server.Close()
			if _, err := server.Write([]byte("last words")); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Write([]byte(tt.sent)); err != nil {
				t.Fatal(err)
			}
			if err := tt.end(server); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 100)
			if n, err := client.Read(got); string(got[:n]) != "last words" || err != nil {
				t.Errorf("the other end reads %q, %v", got[:n], err)
			}
			if n, err := client.Read(got); n != 0 || !errors.Is(err, tt.want) {
				t.Errorf("and then %d bytes, %v, want %v", n, err, tt.want)
			}
			_, err := client.Write([]byte("x"))
			if closed := name != "half close"; closed != errors.Is(err, syscall.EPIPE) {
				t.Errorf("a write to it: %v", err)
			}
			if _, err := server.Write([]byte("x")); err == nil {
				t.Error("the end that closed still writes")
			}
		})
	}
}
