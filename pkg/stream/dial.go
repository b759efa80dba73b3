package stream

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

// dialStagger is how long one address of a name is tried alone before the next
// one is tried too. 300 ms are what browsers wait; a dead address then costs
// little of the dial timeout.
const dialStagger = 300 * time.Millisecond

// dialer dials names that have several addresses. (Go's own dialer tries two at
// once only if they are of different families.)
type dialer struct {
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
}

// dialTCP connects to addr, which may be a name.
func dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1} // keepAlive sets it
	return dialer{lookup: net.DefaultResolver.LookupNetIP, dial: d.DialContext}.connect(ctx, addr)
}

// connect returns the first connection that comes about.
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

// race dials the addresses in their order, each dialStagger after the one before
// or as soon as that has failed. The first connection wins. If all fail, the
// error is the first that is a server's fault, else the first.
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
