package stream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"sync"
	"time"
)

// The defaults of a [Client]'s bounds. Servers break their silence every 5 s,
// so DefaultStallTimeout allows for two lost signs of life.
const (
	DefaultDialTimeout  = 2 * time.Second
	DefaultStartTimeout = 2 * time.Second
	DefaultStallTimeout = 15 * time.Second
	DefaultIdleTimeout  = time.Minute
	// DefaultMaxStreams keeps what one broken connection breaks within bounds.
	DefaultMaxStreams = 128
)

// A Client opens streams. It keeps connections open between them, and carries
// many streams on each. The zero value is ready for use. Fields must not change
// once Stream has been called; the methods are safe for concurrent use.
type Client struct {
	// DialTimeout bounds how long a connection takes, then the server is
	// [Unreachable]. 0 means [DefaultDialTimeout].
	DialTimeout time.Duration
	// StartTimeout bounds how long a request waits for its start line once its
	// last byte was sent, then the server is [Unresponsive]. While lines of other
	// streams come, which the start may be behind, it waits on, but no longer than
	// StallTimeout, or while a long line is coming in until 16 MiB have come. 0
	// means [DefaultStartTimeout].
	StartTimeout time.Duration
	// StallTimeout bounds how long a connection with running streams may stay
	// without a byte, then they have [Stalled]. 0 means [DefaultStallTimeout].
	StallTimeout time.Duration
	// ItemTimeout bounds how long a stream may stay without a whole item, then
	// it has [Stalled]. 0 means no bound: some answers take their time.
	//
	// Time in which this process did not run does not count for any of these.
	ItemTimeout time.Duration
	// IdleTimeout is how long a connection without streams is kept. 0 means
	// [DefaultIdleTimeout].
	IdleTimeout time.Duration
	// MaxStreams is how many streams share a connection before another one is
	// opened. 0 means [DefaultMaxStreams].
	MaxStreams int
	// Dial makes a connection; it must give up when ctx ends. Nil means TCP.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Logger hears of connections at debug level. Nil is silent.
	Logger *slog.Logger

	pulse pulse

	mu       sync.Mutex
	pools    map[string]*pool     // by address
	draining map[string]time.Time // when a server said that it is, by address
	ctx      context.Context      // of dials; set with the first
	cancel   context.CancelFunc
	closed   bool
	wg       sync.WaitGroup // dials and connections
}

// Stream sends req to the server at addr, and yields the items of its answer in
// order as they come. If the sequence ends without an error, the answer is
// complete. Otherwise its last pair is the error: a [*Break] for what went
// wrong with the stream, ctx's error when ctx ended first, or
// [ErrInvalidRequest]. To leave the sequence early cancels the request.
//
// A request that is longer than 256 KiB has a connection of its own. A caller who
// stops reading makes the client hold [MaxHeld] at most.
//
// The items begin at req.From. They share no memory with the client; small ones
// may share up to 2 KiB among themselves.
func (c *Client) Stream(ctx context.Context, addr string, req Request) iter.Seq2[Annotated, error] {
	return func(yield func(Annotated, error) bool) {
		out, err := newOutgoing(req)
		if err != nil {
			yield(Annotated{}, err)
			return
		}
		out.setDeadline(ctx)
		c.pulse.begin()
		defer c.pulse.end()
		// A kept connection may have died while nobody used it. If that shows
		// before the request's first line, a fresh connection to the same
		// server takes its place, once; then the server's state is known.
		for _, reuse := range []bool{true, false} {
			st, err := c.open(ctx, addr, &out, reuse)
			if err == nil {
				err = st.receive(ctx, yield)
			}
			if errors.Is(err, errStale) && reuse {
				if req.OnStale != nil {
					req.OnStale()
				}
				continue
			}
			switch {
			case errors.Is(err, Draining):
				c.saidDraining(addr)
			case errors.Is(err, Application) && isOver(ctx):
				// The server, which knows the deadline too, was the quicker to
				// see it pass.
				<-ctx.Done()
				err = ended(ctx, "request %s to %s", req.ID, addr)
			}
			if err != nil && !errors.Is(err, errLeft) {
				yield(Annotated{}, err)
			}
			return
		}
	}
}

// isOver reports whether ctx's deadline has passed; ctx then ends at once.
func isOver(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && !time.Now().Before(deadline)
}

// open registers a stream on a connection and sends its request.
func (c *Client) open(ctx context.Context, addr string, req *outgoing, reuse bool) (*clientStream, error) {
	for {
		if ctx.Err() != nil {
			return nil, ended(ctx, "request %s to %s", req.ID, addr)
		}
		conn, used, err := c.conn(ctx, addr, reuse, req.alone())
		if err != nil {
			return nil, err
		}
		st, err := conn.open(req, used)
		if errors.Is(err, errNoPlace) {
			// It ended or filled up since it was chosen. If it broke before
			// anybody used it, the next one would too.
			if b, ok := errors.AsType[*Break](conn.ended()); ok && !used {
				return nil, b
			}
			continue
		}
		return st, err
	}
}

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

// Close ends all streams and connections, and waits for them. Streams that run
// end with [ErrClosed]; so do later ones.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	if c.cancel != nil {
		c.cancel()
	}
	var conns []*clientConn
	for _, p := range c.pools {
		conns = append(conns, p.conns...)
	}
	c.mu.Unlock()
	for _, conn := range conns {
		conn.fail(ErrClosed)
	}
	c.wg.Wait()
}

const (
	// drainingKept is how long a client remembers that a server has said
	// draining: by then it has long left.
	drainingKept = 10 * time.Minute
	// maxDraining bounds how many it remembers, the newest.
	maxDraining = 4096
)

// SaidDraining reports whether the server at addr has said within the last ten
// minutes that it is leaving, on any connection, and none was made to that
// address since.
func (c *Client) SaidDraining(addr string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.draining[addr]
	return ok && time.Since(at) < drainingKept
}

// saidDraining notes that the server at addr is leaving.
func (c *Client) saidDraining(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if _, ok := c.draining[addr]; !ok && len(c.draining) >= maxDraining {
		c.forgetDraining(now)
	}
	if c.draining == nil {
		c.draining = make(map[string]time.Time)
	}
	c.draining[addr] = now
}

// forgetDraining makes room for another address. The caller holds mu.
func (c *Client) forgetDraining(now time.Time) {
	oldest, since := "", now
	for addr, at := range c.draining {
		if now.Sub(at) >= drainingKept {
			delete(c.draining, addr)
		} else if !at.After(since) {
			oldest, since = addr, at
		}
	}
	if len(c.draining) >= maxDraining {
		delete(c.draining, oldest)
	}
}

// excuse marks err if it is a break that may come from a pause of this process.
func (c *Client) excuse(err error) error {
	b, ok := errors.AsType[*Break](err)
	if !ok || !b.Kind.isSilence() {
		return err
	}
	now := time.Now()
	if woke := c.pulse.wokeAt(now); !woke.IsZero() && now.Sub(woke) < pauseEcho {
		b.Paused, b.NoReport = true, true
	}
	return err
}

// ended is the error of something that ctx has ended: it wraps ctx's error, and
// the cause where that is another.
func ended(ctx context.Context, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	if err, cause := ctx.Err(), context.Cause(ctx); !errors.Is(cause, err) {
		return fmt.Errorf("%s: %w: %w", what, err, cause)
	}
	return fmt.Errorf("%s: %w", what, context.Cause(ctx))
}

func (c *Client) log() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}

// cmpOr returns v, or def if v is not above zero.
func cmpOr[T int | time.Duration](v, def T) T {
	if v > 0 {
		return v
	}
	return def
}
