package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
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
// draining, ping). send takes a copy: the handler may use the item's memory
// again. A handler may be called for many requests at once; one call's send is
// for one goroutine at a time.
//
// A nil error ends the stream with the count of its items. [ErrBroken] breaks it
// so that the client carries on elsewhere. Any other error is the request's own
// and goes to the caller as text, of which 4096 bytes are sent.
type Handler func(ctx context.Context, req Request, send func(Annotated) error) error

// DefaultMaxConns bounds the connections of a [Server].
const DefaultMaxConns = 16384

// A Server answers requests on the connections of its listeners. Handler must be
// set; the other zero values are useful. Fields must not change once Serve has
// been called; the methods are safe for concurrent use.
type Server struct {
	// Handler answers every request.
	Handler Handler
	// Resumes says that Handler starts at [Request.From]. Without it, a
	// request that wants to start later than the first item is refused.
	Resumes bool
	// Admit, if set, is asked before a request is taken. [ErrOverloaded] sends
	// the client to another server without blame; any other error is the
	// request's own.
	Admit func(Request) error
	// Refused, if set, is told of each request that is not taken, and why:
	// [ErrOverloaded], [ErrDraining], or another error of Admit's or of a start
	// that is not possible. It is called from many goroutines, each of which
	// waits for it.
	Refused func(Request, error)
	// MaxStreams is how many requests may run at once; more are refused as
	// overloaded. 0 means no limit.
	MaxStreams int
	// MaxConns is how many connections may be open at once; more are told that
	// the server is overloaded and closed. 0 means [DefaultMaxConns].
	MaxConns int
	// Farewell is how long Shutdown goes on refusing requests at the least, even
	// if ctx ends sooner: clients that have not yet heard that the server leaves
	// are then sent elsewhere, and do not find a closed door, for which they
	// would blame it. 0 means not at all.
	Farewell time.Duration
	// Logger hears of connections and requests at debug level. Nil is silent.
	Logger *slog.Logger

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*serverConn]struct{}
	streams   int           // running now
	idle      chan struct{} // closed when streams falls to 0; made by who waits
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

func (s *Server) accept(conn net.Conn) {
	limit := cmpOr(s.MaxConns, DefaultMaxConns)
	s.mu.Lock()
	n, closed := len(s.conns), s.closed
	if !closed && n < limit {
		if s.conns == nil {
			s.conns = make(map[*serverConn]struct{})
		}
		c := newServerConn(s, conn)
		s.conns[c] = struct{}{}
		s.wg.Go(func() {
			c.serve()
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.conns, c)
		})
	}
	s.mu.Unlock()
	if !closed && n >= limit {
		s.log().Warn("refusing a connection", "remote", conn.RemoteAddr(), "connections", n, "limit", limit)
		refuseConn(conn, fmt.Sprintf("server has %d connections, its limit", n))
	} else if closed {
		conn.Close()
	}
}

func (s *Server) addListener(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
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
	if s.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Logger
}

// logRequest logs one step of a request's life.
func (s *Server) logRequest(step string, st *serverStream, err error) {
	if s.Logger == nil || !s.Logger.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	args := []any{"request", st.req.ID, "from", st.req.From, "attempt", st.req.Attempt, "remote", st.c.conn.RemoteAddr()}
	if err != nil {
		args = append(args, "err", err)
	}
	s.Logger.Debug(step, args...)
}
