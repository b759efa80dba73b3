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
// the answer is complete. The request is the handler's to read, and is passed
// by reference so that idle streams hold little stack.
//
// It must return soon after ctx ends: the client is gone, or the server is
// leaving and has handed the stream back. send blocks while the client is slow.
// An error of send means that nothing more can be sent, and the handler should
// return it; it is [context.Canceled] if the stream is over. An item has data;
// its event, if any, is none of the wire's own (start, end, error, overloaded,
// draining, misdirected, unresumable, ping). send copies the item: the handler
// may reuse its memory. A handler may be called for many requests at once; the
// send of one call is for one goroutine at a time.
//
// A nil error ends the stream with the count of its items. [ErrFailed] breaks
// it so that the client carries on elsewhere and reports this server down;
// [ErrFailedUnreported] does the same without a report, and [ErrFailedSilent] says
// that nothing came for too long. [ErrOverloaded],
// [ErrUnresumable] and [ErrDraining] send the client elsewhere as well; once
// the stream has had an item, the first two act like [ErrFailedUnreported]. Any
// other error is the request's own and goes to the caller as text, of which
// 4096 bytes are sent; [Error] adds data to it.
//
// If a handler panics or calls [runtime.Goexit], only its own stream ends, as
// if with the request's own error; what it panicked with and the stack are
// logged.
type Handler func(ctx context.Context, req *Request, send func(Annotated) error) error

// The defaults of a [Server]'s bounds.
const (
	DefaultMaxConns = 16384
	// DefaultMaxConnsPerAddr is enough for a host with a hundred clients of ten
	// connections each.
	DefaultMaxConnsPerAddr = 1024
	// DefaultMaxConnStreams is several times what a [Client] puts on one
	// connection.
	DefaultMaxConnStreams = 1024
	DefaultMaxUnfinished  = 256 << 20
	DefaultSendTimeout    = time.Minute
)

// A Server answers requests on the connections of its listeners. Handler must
// be set; the other zero values are useful. Fields must not be changed after
// the first call of Serve; the methods are safe for concurrent use. A panic in
// one of the functions affects only the request for which it was called.
type Server struct {
	// Handler answers every request.
	Handler Handler
	// Resumes says that Handler starts at [Request.From], or goes on behind
	// [Request.Prefix], or returns [ErrUnresumable]. Without it, a request that
	// wants to start after the first item is refused with that error.
	Resumes bool
	// Admit, if set, is asked before a request is taken. [ErrOverloaded] sends
	// the client to another server without a report; any other error is the
	// request's own. It may be called for many requests at once.
	Admit func(Request) error
	// Refused, if set, is called for each request that is not taken, with the
	// reason: [ErrOverloaded], [ErrDraining], [ErrUnresumable], [Misdirected], or
	// another error of Admit. It is called from many goroutines, each of which
	// waits for it.
	Refused func(Request, error)
	// MaxStreams is how many streams may run at once; further requests are
	// refused as overloaded. A stream runs until its handler has returned, even
	// if the client has cancelled it or is gone. 0 means no limit.
	MaxStreams int
	// MaxConnStreams is the same for the streams of one connection. 0 means
	// [DefaultMaxConnStreams].
	MaxConnStreams int
	// MaxConns is how many connections may be open at once. The one that has been
	// idle for longest makes room for a new one, also when the process runs out
	// of file descriptors. If none is idle, a new connection is told that the
	// server is overloaded, and closed. 0 means [DefaultMaxConns].
	MaxConns int
	// MaxConnsPerAddr is the same for the connections from one IP address. Those
	// from this machine do not count. 0 means [DefaultMaxConnsPerAddr].
	MaxConnsPerAddr int
	// MaxRequest is how many bytes the line of a request may have; a longer one
	// is answered with an error. 0 means [MaxLine].
	MaxRequest int
	// MaxUnfinished is how many bytes of unfinished lines all connections may
	// hold together, not counting the first 4 KiB of each. A connection that
	// exceeds it is told that the server is overloaded, and closed. 0 means
	// [DefaultMaxUnfinished].
	MaxUnfinished int
	// SendTimeout is how long a handler's send may wait for the client to read
	// before its stream is handed back with draining, and how long a connection
	// may take no bytes before it is closed. It is checked every 5 s. 0 means
	// [DefaultSendTimeout].
	SendTimeout time.Duration
	// Farewell is for how long Shutdown goes on refusing requests at least, even
	// if ctx ends sooner. Clients that have not yet heard that the server is
	// leaving are then sent elsewhere, instead of finding nobody there and
	// reporting it down. 0 means not at all.
	Farewell time.Duration
	// Logger gets debug messages about connections and requests, and panics at
	// error level. Nil logs nothing.
	Logger *slog.Logger

	names      atomic.Pointer[[]string]
	unfinished atomic.Int64 // bytes, of all connections

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	logger    *slog.Logger // Logger, with its panics survived
	conns     map[*serverConn]struct{}
	hosts     map[netip.Addr]int // how many connections each has
	streams   int                // running now
	idle      chan struct{}      // closed when streams falls to 0; made by Shutdown
	draining  bool
	closed    bool
	closing   chan struct{}  // closed with the server; made by ending
	ended     chan struct{}  // closed when a closed server has no connection left; made by waitConns
	hasEnded  bool           // ended is closed
	wg        sync.WaitGroup // one goroutine for each connection
}

// Serve accepts connections on l until the server is shut down or closed, and
// then returns [ErrClosed]. Any other error is the listener's. It closes l.
//
// It panics if Handler is nil.
func (s *Server) Serve(l net.Listener) error {
	if s.Handler == nil {
		l.Close()
		panic("stream: Server.Handler is nil")
	}
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
		// Most likely the process is out of file descriptors, which passes. The end
		// of the listener does not.
		if _, ok := errors.AsType[net.Error](err); !ok || errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accepting a connection: %w", err)
		}
		delay = min(max(2*delay, 5*time.Millisecond), time.Second)
		s.log().Warn("accepting a connection failed; trying again", "err", err, "in", delay)
		time.Sleep(delay)
	}
}

// Shutdown drains the server. It refuses new requests with draining, which sends
// clients elsewhere without a report, closes idle connections, and waits for the
// running streams. If ctx ends first, it hands the rest back with draining, and
// gives clients a second to take that. Then it closes listeners and connections.
// It returns how many streams it handed back.
//
// Like that of [net/http.Server], it leaves handlers alone that ignore the end of
// their context ([Server.Close] waits for them), and has nothing to wait for if the
// server never served. Close cuts it short.
func (s *Server) Shutdown(ctx context.Context) int {
	s.mu.Lock()
	s.draining = true
	closing, idle := s.ending(), make(chan struct{})
	switch {
	case s.streams == 0 || s.closed:
		close(idle)
	case s.idle != nil:
		idle = s.idle
	default:
		s.idle = idle
	}
	farewell := s.Farewell
	if s.listeners == nil {
		farewell = 0 // nobody knows it
	}
	s.mu.Unlock()

	parting := time.NewTimer(farewell)
	defer parting.Stop()
	for _, c := range s.openConns() {
		c.leaveIfIdle()
	}
	select {
	case <-idle:
	case <-ctx.Done():
	case <-closing:
	}
	handedBack := 0
	for _, c := range s.openConns() {
		if !c.leaveIfIdle() {
			handedBack += c.handBack()
		}
	}
	select {
	case <-parting.C:
	case <-closing:
	}
	s.close(true)
	s.waitConns(ctx)
	return handedBack
}

// waitConns waits until the connections of a closed server have ended: for their
// handlers until ctx ends, and then until what was written was taken.
func (s *Server) waitConns(ctx context.Context) {
	s.mu.Lock()
	ended := s.ended
	if ended == nil {
		ended = make(chan struct{})
		s.ended = ended
		s.endIfLast()
	}
	s.mu.Unlock()
	select {
	case <-ended:
	case <-ctx.Done():
		written := time.NewTimer(lingerTime + lingerTime/10)
		defer written.Stop()
		select {
		case <-ended:
		case <-written.C:
			return
		}
	}
	s.wg.Wait() // for moments
}

// endIfLast tells waitConns that no connection is left, if none is. The caller holds
// mu.
func (s *Server) endIfLast() {
	if s.ended != nil && !s.hasEnded && len(s.conns) == 0 {
		s.hasEnded = true
		close(s.ended)
	}
}

// Close closes listeners and connections at once, cancels the handlers and
// waits for them. Running streams are cut off.
func (s *Server) Close() {
	s.close(false)
	s.wg.Wait()
}

func (s *Server) close(flush bool) {
	s.mu.Lock()
	if closing := s.ending(); !s.closed {
		s.closed = true
		close(closing)
	}
	for l := range s.listeners {
		l.Close()
	}
	s.mu.Unlock()
	for _, c := range s.openConns() {
		c.close(flush, ErrClosed)
	}
}

// ending returns the channel that is closed with the server. The caller holds mu.
func (s *Server) ending() chan struct{} {
	if s.closing == nil {
		s.closing = make(chan struct{})
	}
	return s.closing
}

// Streams returns how many streams run now.
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

// logRequest logs one step of a request at debug level.
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

// errPanicked ends a stream whose handler, or another function of the user,
// panicked or called runtime.Goexit. The client learns no more than that: the
// value of the panic may be private.
var errPanicked = errors.New("the handler panicked")

// survived logs that a function of the user did not return. v is the value from
// recover, nil after runtime.Goexit. A deferred function calls it, so that the
// stack shows where that happened.
func (s *Server) survived(function string, req Request, v any) {
	text := "it called runtime.Goexit"
	args := []any{"function", function, "request", req.ID}
	if v != nil {
		text = "it panicked"
		args = append(args, "panic", v)
	}
	s.log().Error("a function of the server's user did not return: "+text, append(args, "stack", string(debug.Stack()))...)
}

// mayPanic is a [slog.Handler] of the user whose panics are survived too.
type mayPanic struct{ slog.Handler }

func (h mayPanic) Enabled(ctx context.Context, level slog.Level) bool {
	defer func() { _ = recover() }() // there is nowhere to log it
	return h.Handler.Enabled(ctx, level)
}

func (h mayPanic) Handle(ctx context.Context, r slog.Record) error {
	defer func() { _ = recover() }() // as above
	return h.Handler.Handle(ctx, r)
}
