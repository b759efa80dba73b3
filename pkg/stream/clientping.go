package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// Ping asks the server at addr whether it lives, and whether it is the one that
// to names, unless to is empty. That is no request: it takes no place and starts
// nothing. It is made on a connection of its own. Nil means that the server said
// so; other errors are a [*Break] or ctx's error. A server of before there were
// pings answers nothing, and so is [Unresponsive] after [Client.StartTimeout].
func (c *Client) Ping(ctx context.Context, addr, to string) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrClosed
	}
	c.start()
	closing := c.ctx
	c.wg.Add(1)
	c.mu.Unlock()
	defer c.wg.Done()
	c.pulse.begin()
	defer c.pulse.end()

	both, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(closing, cancel)()
	err := c.ping(both, addr, to)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ended(ctx, "ping to %s", addr)
	case both.Err() != nil:
		return ErrClosed
	}
	if errors.Is(err, Draining) {
		c.saidDraining(addr)
	}
	return c.excuse(err)
}

// ping makes the connection and asks.
func (c *Client) ping(ctx context.Context, addr, to string) error {
	conn, err := c.dial(ctx, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	bound := cmpOr(c.StartTimeout, DefaultStartTimeout)
	if err := conn.SetDeadline(time.Now().Add(bound)); err != nil {
		return readBreak(err)
	}
	if _, err = conn.Write(appendPing(nil, to)); err == nil {
		err = pinged(conn)
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return &Break{Kind: Unresponsive, Reason: fmt.Sprintf("no answer to a ping within %v", bound), NoShare: bound < DefaultStartTimeout}
	}
	if _, ok := errors.AsType[*Break](err); err != nil && !ok {
		return readBreak(err)
	}
	return err
}

// pinged reads up to the answer to a ping.
func pinged(conn net.Conn) error {
	lines := lineReader{r: conn}
	for {
		block, err := lines.next()
		if err != nil {
			return err
		}
		for len(block) > 0 {
			var line []byte
			line, block = cutLine(block)
			f, err := decode(line)
			if err != nil {
				return badLine(line, err)
			}
			switch a := f.annotated(); {
			case f.Stream != nil:
				return badLine(line, errNotOpened)
			case f.Event == eventPing:
				return nil
			case f.Event == eventError:
				return notUnderstood(a)
			case said(a) != nil:
				return said(a)
			}
		}
	}
}
