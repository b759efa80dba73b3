package stream

import (
	"context"
	"slices"
)

// maxDials is how many connections to one address are made at once. That is
// enough for 2,048 requests that begin together, and no flood.
const maxDials = 16

// pool is the connections to one address. The client's mu guards it.
type pool struct {
	conns []*clientConn
	dials []*dialing // under way
}

// dialing is one dial. As many requests wait for it as its connection will have
// places, or more if there are as many dials as there may be.
type dialing struct {
	done    chan struct{} // closed when conn and err are set
	waiting int
	conn    *clientConn
	err     error
}

// conn returns a connection to addr with room for a stream, and whether it had
// been used before. Without reuse it is one that nobody has used; alone it is one
// without streams.
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

// start makes ready for the first dial. The caller holds mu.
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
	var d *dialing // with the fewest
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

// drop takes a connection out of its pool, and a pool that nobody needs out of
// the client, which would else grow with every address it ever saw. The caller
// holds mu.
func (c *Client) drop(addr string, p *pool, conn *clientConn) {
	if i := slices.Index(p.conns, conn); i >= 0 {
		p.conns = slices.Delete(p.conns, i, i+1)
	}
	if len(p.conns) == 0 && len(p.dials) == 0 && c.pools[addr] == p {
		delete(c.pools, addr)
	}
}
