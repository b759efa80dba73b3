package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// A Handler answers one request: it calls send for each item and returns when
// the answer is complete.
//
// It must return soon after ctx ends: the client has gone, or the server is
// leaving and has handed the stream back. send blocks while the client is slow;
// its error means that nothing more can be sent, and the handler should return
// it; it is [context.Canceled] if the stream is over. An item has data; its
// event, if any, is none of the wire's own (start, end, error, overloaded,
// draining, misdirected, unresumable, ping). send takes a copy: the handler may use the item's memory
// again. A handler may be called for many requests at once; one call's send is
// for one goroutine at a time.
//
// A nil error ends the stream with the count of its items. [ErrFailed] breaks it
// so that the client carries on elsewhere, and [ErrFailedUnreported] does so
// without blame. [ErrOverloaded], [ErrUnresumable] and [ErrDraining] send the
// client elsewhere as well; once the stream has had an item, the first two break
// it, without blame. Any other error is the request's own and goes to the caller
// as text, of which 4096 bytes are sent; [Error] adds data to it.
//
// A handler that panics, or calls [runtime.Goexit], ends its own stream as the
// request's own error and nothing else: the text and the stack go to the log.
type Handler func(ctx context.Context, req Request, send func(Annotated) error) error

// The defaults of a [Server]'s bounds.
const (
	DefaultMaxConns = 16384
	// DefaultMaxConnsPerAddr is what a host with a hundred clients of ten
	// connections each needs.
	DefaultMaxConnsPerAddr = 1024
	// DefaultMaxConnStreams is several times what a [Client] puts on one.
	DefaultMaxConnStreams = 1024
	DefaultMaxUnfinished  = 256 << 20
	DefaultSendTimeout    = time.Minute
)

// A Server answers requests on the connections of its listeners. Handler must be
// set; the other zero values are useful. Fields must not change once Serve has
// been called; the methods are safe for concurrent use. A panic in any of its
// functions harms the request that it is called for, and no other.
type Server struct {
	// Handler answers every request.
	Handler Handler
	// Resumes says that Handler starts at [Request.From], or returns
	// [ErrUnresumable]. Without it, a request that wants to start later than the
	// first item is refused in that way.
	Resumes bool
	// Admit, if set, is asked before a request is taken. [ErrOverloaded] sends
	// the client to another server without blame; any other error is the
	// request's own.
	Admit func(Request) error
	// Refused, if set, is told of each request that is not taken, and why:
	// [ErrOverloaded], [ErrDraining], [ErrUnresumable], [Misdirected], or another
	// error of Admit's. It is called from many goroutines, each of which waits
	// for it.
	Refused func(Request, error)
	// MaxStreams is how many requests may run at once; more are refused as
	// overloaded. One runs until its handler has returned, even if the client
	// has cancelled it or has gone. 0 means no limit.
	MaxStreams int
	// MaxConnStreams is the same for the requests of one connection. 0 means
	// [DefaultMaxConnStreams].
	MaxConnStreams int
	// MaxConns is how many connections may be open at once. The one that has
	// been idle for longest makes room for another, and so it does where the
	// process runs out of file descriptors; where none is idle, those that come
	// are told that the server is overloaded, and closed. 0 means
	// [DefaultMaxConns].
	MaxConns int
	// MaxConnsPerAddr is the same for the connections from one address, those
	// from this machine aside. 0 means [DefaultMaxConnsPerAddr].
	MaxConnsPerAddr int
	// MaxRequest is how many bytes the line of a request may have; a longer one
	// is answered with an error. 0 means [MaxLine].
	MaxRequest int
	// MaxUnfinished is how many bytes of lines that are not finished all
	// connections together may hold, from the 4 KiB of each on; who would add to
	// that is told that the server is overloaded, and closed. 0 means
	// [DefaultMaxUnfinished].
	MaxUnfinished int
	// SendTimeout is how long, give or take 5 s where it is shorter than that,
	// a handler's send may wait for the client to read before its stream is
	// handed back with draining, and how long a connection may take no bytes
	// before it is closed. 0 means [DefaultSendTimeout].
	SendTimeout time.Duration
	// Farewell is how long Shutdown goes on refusing requests at the least, even
	// if ctx ends sooner: clients that have not yet heard that the server leaves
	// are then sent elsewhere, and do not find a closed door, for which they
	// would blame it. 0 means not at all.
	Farewell time.Duration
	// Logger hears of connections and requests at debug level, and of panics at
	// error level. Nil is silent.
	Logger *slog.Logger

	names      atomic.Pointer[[]string]
	unfinished atomic.Int64 // bytes, of all connections

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	logger    *slog.Logger // Logger, made safe
	conns     map[*serverConn]struct{}
	hosts     map[netip.Addr]int // connections of each
	streams   int                // running now
	idle      chan struct{}      // closed when streams falls to 0; made by who waits
	draining  bool
	closed    bool
	wg        sync.WaitGroup // a goroutine a connection
}

// Serve accepts connections on l until the server is shut down or closed, and
// then returns [ErrClosed]. It closes l. Any other error is the listener's.
func (s *Server) Serve(l net.Listener) error {
	if !s.addListener(l) {
		l.Close()
		return ErrClosed
	}
	defer s.removeListener(l)
	for delay := time.Duration(0); ; {
		conn, err := l.Accept()
		if err == nil {
			delay = 0
			s.accept(conn)
			continue
		}
		if s.isClosed() {
			return ErrClosed
		}
		if outOfFiles(err) && s.dropIdle(netip.Addr{}) {
			continue
		}
		// Out of file descriptors, most likely: that passes. The listener's
		// end does not.
		if _, ok := errors.AsType[net.Error](err); !ok || errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accepting a connection: %w", err)
		}
		delay = min(max(2*delay, 5*time.Millisecond), time.Second)
		s.log().Warn("accepting a connection failed; trying again", "err", err, "in", delay)
		time.Sleep(delay)
	}
}

// Shutdown drains the server: it refuses new requests with draining, which
// sends clients elsewhere without blame, and waits for the running streams. When
// ctx ends first, it hands the rest back with draining. Then it closes listeners
// and connections. It returns how many streams it handed back.
func (s *Server) Shutdown(ctx context.Context) int {
	s.mu.Lock()
	s.draining = true
	idle := make(chan struct{})
	switch {
	case s.streams == 0 || s.closed:
		close(idle)
	case s.idle != nil:
		idle = s.idle
	default:
		s.idle = idle
	}
	s.mu.Unlock()

	farewell := time.NewTimer(s.Farewell)
	defer farewell.Stop()
	select {
	case <-idle:
	case <-ctx.Done():
	}
	handedBack := 0
	for _, c := range s.openConns() {
		handedBack += c.handBack()
	}
	<-farewell.C
	s.close(true)
	return handedBack
}

// Close closes listeners and connections at once, cancels the handlers and
// waits for them. Streams that run are cut off.
func (s *Server) Close() { s.close(false) }

func (s *Server) close(flush bool) {
	s.mu.Lock()
	s.closed = true
	for l := range s.listeners {
		l.Close()
	}
	s.mu.Unlock()
	for _, c := range s.openConns() {
		c.close(flush, ErrClosed)
	}
	s.wg.Wait()
}

// Streams returns how many requests run now.
func (s *Server) Streams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams
}

func (s *Server) addListener(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.logger == nil && s.Logger != nil {
		s.logger = slog.New(mayPanic{s.Logger.Handler()})
	}
	if s.listeners == nil {
		s.listeners = make(map[net.Listener]struct{})
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) removeListener(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	l.Close()
}

func (s *Server) openConns() []*serverConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := make([]*serverConn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *Server) log() *slog.Logger {
	if s.logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.logger
}

// logRequest logs one step of a request's life.
func (s *Server) logRequest(step string, st *serverStream, err error) {
	if s.logger == nil || !s.logger.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	args := []any{"request", st.req.ID, "from", st.req.From, "attempt", st.req.Attempt, "remote", st.c.conn.RemoteAddr()}
	if err != nil {
		args = append(args, "err", err)
	}
	s.logger.Debug(step, args...)
}

// errPanicked ends a stream whose handler panicked or called runtime.Goexit, and
// so did another function of the user's that had a say in it. The client learns
// no more than that: what was panicked with may be private.
var errPanicked = errors.New("the handler panicked")

// survived logs that a function of the user's did not return: v is what recover
// gave, nil if it called runtime.Goexit. A deferred function calls it, for the
// stack to show where that was.
func (s *Server) survived(function string, req Request, v any) {
	text := "it called runtime.Goexit"
	args := []any{"function", function, "request", req.ID}
	if v != nil {
		text = "it panicked"
		args = append(args, "panic", v)
	}
	s.log().Error("a function of the server's user did not return: "+text, append(args, "stack", string(debug.Stack()))...)
}

// mayPanic is a [slog.Handler] of the user's that is survived, too.
type mayPanic struct{ slog.Handler }

func (h mayPanic) Enabled(ctx context.Context, level slog.Level) bool {
	defer func() { _ = recover() }() // there is nowhere to tell
	return h.Handler.Enabled(ctx, level)
}

func (h mayPanic) Handle(ctx context.Context, r slog.Record) error {
	defer func() { _ = recover() }() // as above
	return h.Handler.Handle(ctx, r)
}
