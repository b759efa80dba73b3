package stream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var (
	errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	errNoRoute = &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}
)

// A name's addresses are dialled one after the other, 300 ms apart or as soon as
// one fails; the first connection wins and the others are closed.
func TestDialAddresses(t *testing.T) {
	type way struct {
		after time.Duration // 0 for never
		err   error
	}
	const ms = time.Millisecond
	for name, tt := range map[string]struct {
		ways  []way
		want  int // which wins
		err   error
		after time.Duration
	}{
		"first":              {[]way{{100 * ms, nil}, {1, nil}}, 0, nil, 100 * ms},
		"dead and live":      {[]way{{}, {1 * ms, nil}}, 1, nil, 301 * ms},
		"dead, dead, live":   {[]way{{}, {}, {1 * ms, nil}}, 2, nil, 601 * ms},
		"refused and live":   {[]way{{1 * ms, errRefused}, {1 * ms, nil}}, 1, nil, 2 * ms},
		"slow beats slower":  {[]way{{400 * ms, nil}, {200 * ms, nil}}, 0, nil, 400 * ms},
		"second is quicker":  {[]way{{700 * ms, nil}, {200 * ms, nil}, {time.Second, nil}}, 1, nil, 500 * ms},
		"all refused":        {[]way{{1 * ms, errRefused}, {2 * ms, errNoRoute}}, 0, errRefused, 3 * ms},
		"no route, refused":  {[]way{{1 * ms, errNoRoute}, {2 * ms, errRefused}}, 0, errRefused, 3 * ms},
		"no route to any":    {[]way{{1 * ms, errNoRoute}, {2 * ms, errNoRoute}}, 0, errNoRoute, 3 * ms},
		"dead until the end": {[]way{{}, {}}, 0, context.DeadlineExceeded, 2 * time.Second},
		"one":                {[]way{{5 * ms, nil}}, 0, nil, 5 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var theirs []net.Conn
				var winners []string
				d := dialer{
					lookup: func(_ context.Context, network, host string) ([]netip.Addr, error) {
						if network != "ip" || host != "server" {
							t.Errorf("looked up %s %s", network, host)
						}
						var ips []netip.Addr
						for i := range tt.ways {
							ips = append(ips, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
						}
						return ips, nil
					},
					dial: func(ctx context.Context, _, addr string) (net.Conn, error) {
						at := netip.MustParseAddrPort(addr)
						way := tt.ways[at.Addr().As4()[3]]
						if at.Port() != 41 {
							t.Errorf("dialled %s", addr)
						}
						if way.after == 0 {
							<-ctx.Done()
							return nil, ctx.Err()
						}
						time.Sleep(way.after) // and comes too late, if that is so
						if way.err != nil {
							return nil, way.err
						}
						one, other := net.Pipe()
						mu.Lock()
						defer mu.Unlock()
						theirs, winners = append(theirs, other), append(winners, addr)
						return one, nil
					},
				}
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				begin := time.Now()
				conn, err := d.connect(ctx, "server:41")
				if !errors.Is(err, tt.err) || (conn == nil) != (tt.err != nil) {
					t.Fatalf("%v, %v, want error %v", conn, err, tt.err)
				}
				if took := time.Since(begin); took < tt.after || tt.err != nil && took != tt.after {
					t.Errorf("took %v, want %v", took, tt.after)
				}
				if conn == nil {
					return
				}
				conn.Close()
				if want := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(tt.want)}), 41).String(); !slices.Contains(winners, want) {
					t.Errorf("%s did not win", want)
				}
				for i, other := range theirs { // all of them are closed, the winner just now
					if _, err := other.Read(make([]byte, 1)); err == nil {
						t.Errorf("connection %d is open", i)
					}
				}
			})
		})
	}
}

// An address that is not a name is dialled unchanged. A name that cannot be
// resolved is this machine's trouble, an unknown port is not.
func TestDialWithoutNames(t *testing.T) {
	var dialled []string
	d := dialer{
		lookup: func(_ context.Context, _, host string) ([]netip.Addr, error) {
			if host == "empty" {
				return nil, nil
			}
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		},
		dial: func(_ context.Context, _, addr string) (net.Conn, error) {
			dialled = append(dialled, addr)
			return nil, errRefused
		},
	}
	for addr, local := range map[string]bool{"10.0.0.1:41": false, "[::1]:41": false, "[fe80::1%eth0]:41": false, ":41": false, "no address": false, "gone:41": true, "empty:41": true} {
		dialled = nil
		_, err := d.connect(t.Context(), addr)
		if err == nil || isLocal(err) != local || !local && !slices.Equal(dialled, []string{addr}) {
			t.Errorf("%s: dialled %q, %v, local %v", addr, dialled, err, isLocal(err))
		}
	}
	var plain net.Dialer
	if _, err := plain.DialContext(t.Context(), "tcp", "127.0.0.1:none"); err == nil || isLocal(err) {
		t.Errorf("%v is taken for this machine's trouble", err)
	}
}

// A lack of this machine's is not attributed to a server.
func TestLocalTrouble(t *testing.T) {
	for errno, want := range map[syscall.Errno]Kind{
		syscall.EMFILE: Local, syscall.ENFILE: Local, syscall.ENETDOWN: Local, syscall.ENETUNREACH: Local, syscall.EADDRNOTAVAIL: Local,
		syscall.ECONNREFUSED: Unreachable, syscall.EHOSTUNREACH: Unreachable, syscall.ETIMEDOUT: Unreachable, syscall.ECONNRESET: Unreachable,
	} {
		c := &Client{Dial: func(context.Context, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errno)}
		}}
		err := last(c.Stream(t.Context(), "10.0.0.1:41", Request{Data: String("x")}))
		c.Close()
		if b, ok := errors.AsType[*Break](err); !ok || b.Kind != want || b.NoReport || b.NoShare || !errors.Is(err, errno) {
			t.Errorf("%v: %+v, want %s", errno, b, want)
		}
		want = map[bool]Kind{true: Local, false: Reset}[want == Local]
		if b, ok := errors.AsType[*Break](readBreak(&net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", errno)})); !ok || b.Kind != want || !errors.Is(b, errno) {
			t.Errorf("%v while reading: %+v, want %s", errno, b, want)
		}
	}
}
