package stream

import (
	"context"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// The kernel has the options that keepAlive sets.
func TestKeepAlive(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	keepAlive(conn)
	for name, o := range map[string]struct{ level, opt, want int }{
		"SO_KEEPALIVE":     {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		"TCP_KEEPIDLE":     {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 3},
		"TCP_KEEPINTVL":    {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 1},
		"TCP_KEEPCNT":      {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 7},
		"TCP_USER_TIMEOUT": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 10_000},
	} {
		if got := option(t, conn, o.level, o.opt); got != o.want {
			t.Errorf("%s is %d, want %d", name, got, o.want)
		}
	}
}

// option returns an option of a connection from the kernel.
func option(t *testing.T, conn net.Conn, level, opt int) int {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	got := -1
	if e := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), level, opt) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	return got
}

// A client's connections are kept alive, however they were dialled.
func TestClientKeepsAlive(t *testing.T) {
	for name, dial := range map[string]func(context.Context, string) (net.Conn, error){
		"own": dialTCP,
		"another": func(ctx context.Context, addr string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c := &Client{Dial: dial}
		defer c.Close()
		conn, err := c.dial(t.Context(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got := option(t, conn, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); got != 10_000 {
			t.Errorf("%s: TCP_USER_TIMEOUT is %d", name, got)
		}
	}
}
