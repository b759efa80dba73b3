package stream

import (
	"context"
	"slices"
)

// pool is the connections to one address. The client's mu guards it.
type pool struct {
	conns   []*clientConn
	dialing *dialing // nil when no dial is under way
}

// dialing is one dial. All requests that need the connection wait for the same.
type dialing struct {
	done chan struct{} // closed when conn and err are set
	conn *clientConn
	err  error
}

// conn returns a connection to addr with room for a stream, and whether it had
// been used before. Without reuse it is one that nobody has used.
func (c *Client) conn(ctx context.Context, addr string, reuse bool) (*clientConn, bool, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, false, ErrClosed
	}
	p := c.pools[addr]
	if p == nil {
		if c.pools == nil {
			c.pools = make(map[string]*pool)
			c.ctx, c.cancel = context.WithCancel(context.Background())
		}
		p = &pool{}
		c.pools[addr] = p
	}
	if reuse {
		for _, conn := range p.conns {
			if conn.hasPlace() {
				c.mu.Unlock()
				return conn, true, nil
			}
		}
	}
	d := p.dialing
	if d == nil {
		d = &dialing{done: make(chan struct{})}
		p.dialing = d
		c.wg.Go(func() { c.connect(addr, p, d) })
	}
	c.mu.Unlock()
	select {
	case <-d.done:
		return d.conn, false, d.err
	case <-ctx.Done():
		return nil, false, ended(ctx, "connecting to %s", addr)
	}
}

// connect dials, and runs the connection to its end.
func (c *Client) connect(addr string, p *pool, d *dialing) {
	raw, err := c.dial(c.ctx, addr)
	c.mu.Lock()
	p.dialing = nil
	switch {
	case err != nil && c.closed:
		d.err = ErrClosed
	case err != nil:
		d.err = c.unreachable(addr, err)
		c.drop(addr, p, nil)
	case c.closed:
		d.err = ErrClosed
		raw.Close()
	default:
		d.conn = newClientConn(c, addr, raw)
		p.conns = append(p.conns, d.conn)
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
	if len(p.conns) == 0 && p.dialing == nil && c.pools[addr] == p {
		delete(c.pools, addr)
	}
}
