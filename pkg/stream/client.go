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

// The defaults of a [Client]'s bounds. Servers ping every 5 s, so 15 s
// tolerates two lost pings.
const (
	DefaultDialTimeout  = 2 * time.Second
	DefaultStartTimeout = 2 * time.Second
	DefaultStallTimeout = 15 * time.Second
	DefaultIdleTimeout  = time.Minute
	// DefaultMaxStreams bounds how many streams one broken connection breaks.
	DefaultMaxStreams = 128
	// DefaultMaxWindow is enough for 40 MB/s on a link of 100 ms.
	DefaultMaxWindow = 4 << 20
)

// A Client opens streams. It keeps connections open between them, and carries
// many streams on each. The zero value is ready for use. Fields must not be
// changed after the first call of Stream; the methods are safe for concurrent
// use.
type Client struct {
	// DialTimeout bounds how long connecting may take before the server is
	// [Unreachable]. 0 means [DefaultDialTimeout].
	DialTimeout time.Duration
	// StartTimeout bounds how long a request waits for its start line after its
	// last byte was sent, before the server is [Unresponsive]. While lines of
	// other streams arrive, which the start may be queued behind, the request
	// waits longer: up to StallTimeout, or while a long line is coming in, until
	// 16 MiB have arrived. 0 means [DefaultStartTimeout].
	StartTimeout time.Duration
	// StallTimeout bounds how long a connection with running streams may go
	// without a byte before they have [Stalled]. 0 means [DefaultStallTimeout].
	StallTimeout time.Duration
	// ItemTimeout bounds how long a stream may go without a whole item before it
	// has [Stalled]. 0 means no bound: some answers take their time.
	//
	// Time during which this process did not run counts towards none of these.
	ItemTimeout time.Duration
	// IdleTimeout is how long a connection without streams is kept. 0 means
	// [DefaultIdleTimeout].
	IdleTimeout time.Duration
	// MaxStreams is how many streams share a connection before another one is
	// opened. 0 means [DefaultMaxStreams].
	MaxStreams int
	// MaxWindow is how many bytes of lines a server may be ahead of the caller of
	// one stream, and so bounds what the client holds for a caller who has stopped
	// reading: the window, the line that overran it and the one that ends the stream,
	// of 1 MiB each at most. A stream begins with a window of 256 KiB, which is also
	// the least, and gets more while its caller keeps up and the window is what limits
	// it. So a caller who never was fast and whose lines are short makes the client
	// hold some 300 KiB. 0 means [DefaultMaxWindow].
	MaxWindow int
	// Dial connects to addr; it must give up when ctx ends. Nil means TCP.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Logger gets a debug message for each connection. Nil logs nothing.
	Logger *slog.Logger

	pulse pulse

	mu       sync.Mutex
	pools    map[string]*pool     // by address
	draining map[string]time.Time // when a server said so, by address
	ctx      context.Context      // of dials; set by start
	cancel   context.CancelFunc
	closed   bool
	wg       sync.WaitGroup // dials and connections
}

// Stream sends req to the server at addr and yields the items of its answer, in
// order, as they arrive. If the sequence ends without an error, the answer is
// complete. Otherwise its last pair is the error: a [*Break] for what went
// wrong with the stream, ctx's error if ctx ended first, [ErrInvalidRequest],
// or [ErrClosed]. Leaving the sequence early cancels the request.
//
// A request longer than 256 KiB has a connection of its own. What the client holds
// for a caller who stops reading is bounded by MaxWindow.
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
		c.pulse.begin(c.restless())
		defer c.pulse.end()
		// A kept connection may have died unnoticed while it was idle. If that
		// shows before the answer's first line, a fresh connection to the same
		// server takes its place, once; after that, the state of the server is
		// known.
		for _, reuse := range []bool{true, false} {
			st, err := c.open(ctx, addr, &out, reuse)
			if err == nil {
				err = st.receive(ctx, yield)
			}
			if errors.Is(err, errStale) && reuse {
				if req.Hooks != nil && req.Hooks.Stale != nil {
					req.Hooks.Stale()
				}
				continue
			}
			switch {
			case errors.Is(err, Draining):
				c.saidDraining(addr)
			case errors.Is(err, Application) && isOver(ctx):
				// The server knows the deadline too, and was quicker to see it pass.
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

// isOver reports whether ctx's deadline has passed; ctx is then about to end.
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
			// The connection ended or filled up after it was chosen. If it broke
			// before it was ever used, the next one would too.
			if b, ok := errors.AsType[*Break](conn.ended()); ok && !used {
				return nil, b
			}
			continue
		}
		return st, err
	}
}

// Ping asks the server at addr whether it lives and, unless to is empty,
// whether it is the one that to names. It returns nil if the server says so;
// other errors are a [*Break], ctx's error or [ErrClosed]. A ping is not a
// request: it takes no place and starts nothing. It uses a connection of its
// own. A server that is too old to know pings does not answer, and so is
// [Unresponsive] after [Client.StartTimeout].
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
	c.pulse.begin(c.restless())
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

// ping connects and asks.
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

// pinged reads until the answer to a ping.
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

// Close ends all streams and connections and waits for them. Running streams,
// and later ones, end with [ErrClosed].
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
	// draining: the server is long gone by then.
	drainingKept = 10 * time.Minute
	// maxDraining is how many such servers it remembers, the latest ones.
	maxDraining = 4096
)

// SaidDraining reports whether the server at addr has said on any connection
// within the last ten minutes that it is leaving, and no connection to that
// address was made since.
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

// forgetDraining makes room for one more address. The caller holds mu.
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

// restless reports whether a bound is so short that a pause between two slow
// beats would matter beside it. (A start is not waited for in silence.)
func (c *Client) restless() bool {
	return c.ItemTimeout > 0 && c.ItemTimeout < shortBound || cmpOr(c.StallTimeout, DefaultStallTimeout) < shortBound
}

// excuse marks err if it is a break that a pause of this process may have
// caused.
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
// its cause if that differs.
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
