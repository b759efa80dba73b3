package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// maxDials is how many connections to one address are being made at once. That
// is enough for 2,048 requests that begin together, and no flood.
const maxDials = 16

// pool is the connections to one address. The client's mu guards it.
type pool struct {
	conns []*clientConn
	dials []*dialing // under way
}

// dialing is one dial. As many requests wait for it as its connection will have
// places for, or more if there are maxDials of them.
type dialing struct {
	done    chan struct{} // closed when conn and err are set
	waiting int
	conn    *clientConn
	err     error
}

// conn returns a connection to addr with room for a stream, and whether it had
// been used before. Without reuse it is a new one; with alone it has no other
// streams.
func (c *Client) conn(ctx context.Context, addr string, reuse, alone bool) (*clientConn, bool, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, false, ErrClosed
	}
	c.start()
	p := c.pools[addr]
	if p == nil {
		p = &pool{}
		c.pools[addr] = p
	}
	if reuse {
		for _, conn := range p.conns {
			if conn.hasPlace(alone) {
				c.mu.Unlock()
				return conn, true, nil
			}
		}
	}
	d := c.join(addr, p, alone)
	c.mu.Unlock()
	select {
	case <-d.done:
		return d.conn, false, d.err
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		d.waiting--
		return nil, false, ended(ctx, "connecting to %s", addr)
	}
}

// start initialises what the first dial needs. The caller holds mu.
func (c *Client) start() {
	if c.ctx == nil {
		c.pools = make(map[string]*pool)
		c.ctx, c.cancel = context.WithCancel(context.Background())
	}
}

// join returns the dial that a request is to wait for. The caller holds mu.
func (c *Client) join(addr string, p *pool, alone bool) *dialing {
	places, needs := cmpOr(c.MaxStreams, DefaultMaxStreams), 1
	if alone {
		needs = places
	}
	var d *dialing // that the fewest wait for
	for _, other := range p.dials {
		if d == nil || other.waiting < d.waiting {
			d = other
		}
	}
	if d == nil || d.waiting+needs > places && len(p.dials) < maxDials {
		d = &dialing{done: make(chan struct{})}
		p.dials = append(p.dials, d)
		c.wg.Go(func() { c.connect(addr, p, d) })
	}
	d.waiting += needs
	return d
}

// connect dials, and runs the connection to its end.
func (c *Client) connect(addr string, p *pool, d *dialing) {
	raw, err := c.dial(c.ctx, addr)
	c.mu.Lock()
	p.dials = slices.DeleteFunc(p.dials, func(other *dialing) bool { return other == d })
	switch {
	case c.closed:
		d.err = ErrClosed
		if err == nil {
			raw.Close()
		}
	case err != nil:
		d.err = err
		c.drop(addr, p, nil)
	default:
		d.conn = newClientConn(c, addr, raw)
		p.conns = append(p.conns, d.conn)
		delete(c.draining, addr)
	}
	c.mu.Unlock()
	close(d.done)
	if d.err != nil {
		c.log().Debug("no connection", "addr", addr, "err", d.err)
		return
	}
	c.log().Debug("connected", "addr", addr)
	why := d.conn.run()
	c.mu.Lock()
	c.drop(addr, p, d.conn)
	c.mu.Unlock()
	c.log().Debug("connection over", "addr", addr, "why", why)
}

// drop takes a connection out of its pool, and an empty pool out of the client,
// which would otherwise grow with every address it ever saw. The caller holds
// mu.
func (c *Client) drop(addr string, p *pool, conn *clientConn) {
	if i := slices.Index(p.conns, conn); i >= 0 {
		p.conns = slices.Delete(p.conns, i, i+1)
	}
	if len(p.conns) == 0 && len(p.dials) == 0 && c.pools[addr] == p {
		delete(c.pools, addr)
	}
}

func (c *Client) dial(ctx context.Context, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, cmpOr(c.DialTimeout, DefaultDialTimeout))
	defer cancel()
	dial := dialTCP
	if c.Dial != nil {
		dial = c.Dial
	}
	conn, err := dial(ctx, addr)
	if err != nil {
		return nil, c.unreachable(addr, err)
	}
	keepAlive(conn)
	return conn, nil
}

// unreachable is the break of a failed dial.
func (c *Client) unreachable(addr string, err error) error {
	b := &Break{Kind: Unreachable, Reason: "no connection to " + addr, Err: err}
	if isLocal(err) {
		b.Kind = Local
	} else if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		bound := cmpOr(c.DialTimeout, DefaultDialTimeout)
		b.Reason = fmt.Sprintf("no connection to %s within %v", addr, bound)
		b.NoShare = bound < DefaultDialTimeout
	}
	return c.excuse(b)
}

// isLocal reports whether err is this machine's own trouble and says nothing
// about the server: no file descriptor, no network, no address to connect from,
// or a name that cannot be resolved.
func isLocal(err error) bool {
	if lookup, ok := errors.AsType[*net.DNSError](err); ok {
		return !strings.Contains(lookup.Name, "/") // tcp/PORT: then the address is wrong
	}
	errno, ok := errors.AsType[syscall.Errno](err)
	return ok && slices.Contains([]syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EADDRNOTAVAIL,
	}, errno)
}

// dialStagger is how long one address of a name is tried before the next one is
// tried as well. Browsers wait 300 ms; a dead address then costs little of the
// dial timeout.
const dialStagger = 300 * time.Millisecond

// dialer dials names that have several addresses. (Go's own dialer only tries
// two at once if they are of different families.)
type dialer struct {
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
}

// dialTCP connects to addr, which may be a name.
func dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1} // keepAlive sets it
	return dialer{lookup: net.DefaultResolver.LookupNetIP, dial: d.DialContext}.connect(ctx, addr)
}

// connect returns the first connection that is made.
func (d dialer) connect(ctx context.Context, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return d.dial(ctx, "tcp", addr)
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return d.dial(ctx, "tcp", addr)
	}
	ips, err := d.lookup(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	addrs := make([]string, len(ips))
	for i, ip := range ips {
		addrs[i] = net.JoinHostPort(ip.Unmap().String(), port)
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "it has no address", Name: host, IsNotFound: true}
	}
	return d.race(ctx, addrs)
}

// race dials the addresses in order, each dialStagger after the previous one or
// as soon as that has failed. The first connection wins. If all fail, it
// returns the first error that is not this machine's own, or else the first.
func (d dialer) race(ctx context.Context, addrs []string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan result, len(addrs))
	var dials sync.WaitGroup
	defer func() {
		cancel()
		dials.Wait()
		close(results)
		for r := range results {
			if r.conn != nil {
				r.conn.Close() // it came second
			}
		}
	}()
	next := time.NewTimer(0)
	defer next.Stop()
	var why error
	for begun, failed := 0, 0; failed < len(addrs); {
		select {
		case <-next.C:
			if begun == len(addrs) {
				continue
			}
			addr := addrs[begun]
			begun++
			dials.Go(func() {
				conn, err := d.dial(ctx, "tcp", addr)
				results <- result{conn, err}
			})
			next.Reset(dialStagger)
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			failed++
			if why == nil || isLocal(why) && !isLocal(r.err) {
				why = r.err
			}
			next.Reset(0)
		}
	}
	return nil, why
}
