package stream

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
)

// refusal is why a request is not taken, or is handed back, with a text of its
// own.
type refusal struct {
	kind error
	text string
}

func (r *refusal) Error() string { return r.text }

func (r *refusal) Unwrap() error { return r.kind }

// errNotReading hands back a stream whose client has not read for too long.
var errNotReading error = &refusal{ErrDraining, "client is not reading"}

// SetNames sets the records that this server answers for, each as
// "namespace/component/endpoint/id". From then on it refuses requests whose
// [Request.To] is another record with [Misdirected]. Without names, as
// initially, it ignores To. It may be called at any time.
func (s *Server) SetNames(names ...string) {
	names = slices.Clone(names)
	s.names.Store(&names)
}

// maxNames is how many of its names a server tells a misdirected client.
const maxNames = 8

// misdirected returns why a line for to is not for this server, or nil.
func (s *Server) misdirected(to string) error {
	names := s.names.Load()
	if to == "" || names == nil || len(*names) == 0 {
		return nil
	}
	if slices.Contains(*names, to) {
		return nil
	}
	told := *names
	more := ""
	if n := len(told) - maxNames; n > 0 {
		told, more = told[:maxNames], fmt.Sprintf(" and %d more", n)
	}
	return &refusal{Misdirected, "this is " + strings.Join(told, ", ") + more}
}

// admit takes a place for a request, or returns why it is refused.
func (s *Server) admit(req Request) error {
	if err := s.misdirected(req.To); err != nil {
		return err
	}
	s.mu.Lock()
	switch {
	case s.draining:
		s.mu.Unlock()
		return ErrDraining
	case s.MaxStreams > 0 && s.streams >= s.MaxStreams:
		n := s.streams
		s.mu.Unlock()
		return fmt.Errorf("%w: %d streams run, its limit", ErrOverloaded, n)
	}
	s.streams++
	s.mu.Unlock()
	kept := false
	defer func() {
		if !kept {
			s.release()
		}
	}()
	if req.From > 0 && !s.Resumes {
		return &refusal{ErrUnresumable, fmt.Sprintf("cannot start at item %d: this server starts at the first only", req.From)}
	}
	if err := s.askAdmit(req); err != nil {
		return err
	}
	kept = true
	return nil
}

// askAdmit calls the user's Admit.
func (s *Server) askAdmit(req Request) (err error) {
	if s.Admit == nil {
		return nil
	}
	returned := false
	defer func() {
		if v := recover(); !returned {
			s.survived("Admit", req, v)
			err = errPanicked
		}
	}()
	err = s.Admit(req)
	returned = true
	return err
}

// tellRefused calls the user's Refused.
func (s *Server) tellRefused(req Request, err error) {
	if s.Refused == nil {
		return
	}
	returned := false
	defer func() {
		if v := recover(); !returned {
			s.survived("Refused", req, v)
		}
	}()
	s.Refused(req, err)
	returned = true
}

// release gives a request's place back.
func (s *Server) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams--
	if s.streams == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

// standing returns why a request for to would be refused whatever the load, or
// nil. It is the answer to a ping.
func (s *Server) standing(to string) error {
	if err := s.misdirected(to); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return ErrDraining
	}
	return nil
}

// isRefusal reports whether err means that a request was not taken for a reason
// that is not the request's own.
func isRefusal(err error) bool {
	return errors.Is(err, ErrOverloaded) || errors.Is(err, ErrUnresumable) || errors.Is(err, Misdirected)
}

// idleGrace is how long a connection has to be idle before it may make room for
// another one: a new connection needs time to send its request.
const idleGrace = 100 * time.Millisecond

// accept serves a connection, or refuses it.
func (s *Server) accept(conn net.Conn) {
	host := hostOf(conn)
	for !s.add(conn, host) {
		why, among := s.full(host)
		if why == "" || among != nil && s.dropIdle(*among) {
			continue
		}
		s.log().Warn("refusing a connection", "remote", conn.RemoteAddr(), "reason", why)
		refuseConn(conn, why)
		return
	}
}

// add registers and serves a connection, unless there are too many. It closes
// the connection if the server is closed.
func (s *Server) add(conn net.Conn, host netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		conn.Close()
		return true
	}
	if why, _ := s.fullLocked(host); why != "" {
		return false
	}
	if s.conns == nil {
		s.conns = make(map[*serverConn]struct{})
		s.hosts = make(map[netip.Addr]int)
	}
	c := newServerConn(s, conn, host)
	s.conns[c] = struct{}{}
	if host.IsValid() {
		s.hosts[host]++
	}
	s.wg.Go(c.serve)
	return true
}

// full returns why a connection from host is refused, "" if it is not, and
// among whose connections an idle one may make room, if any may: those of host,
// or all for the zero address.
func (s *Server) full(host netip.Addr) (why string, among *netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fullLocked(host)
}

func (s *Server) fullLocked(host netip.Addr) (why string, among *netip.Addr) {
	perAddr := cmpOr(s.MaxConnsPerAddr, DefaultMaxConnsPerAddr)
	switch n := len(s.conns); {
	case host.IsValid() && s.hosts[host] >= perAddr:
		return fmt.Sprintf("server has %d connections from %v, its limit for one address", s.hosts[host], host), &host
	case n >= cmpOr(s.MaxConns, DefaultMaxConns):
		return fmt.Sprintf("server has %d connections, its limit", n), new(netip.Addr)
	case s.unfinished.Load() > int64(cmpOr(s.MaxUnfinished, DefaultMaxUnfinished)-largeBuffer):
		return "server holds too many bytes of unfinished lines", nil
	}
	return "", nil
}

// forget removes a connection, once.
func (s *Server) forget(c *serverConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[c]; !ok {
		return
	}
	delete(s.conns, c)
	s.endIfLast()
	if !c.host.IsValid() {
		return
	}
	if s.hosts[c.host]--; s.hosts[c.host] == 0 {
		delete(s.hosts, c.host)
	}
}

// dropIdle closes the connection that has been idle for longest, of those from
// host or, for the zero address, of all. It reports whether there was one.
func (s *Server) dropIdle(host netip.Addr) bool {
	for {
		var longest *serverConn
		before := time.Now().Add(-idleGrace)
		for _, c := range s.openConns() {
			if host.IsValid() && c.host != host {
				continue
			}
			if since, idle := c.idleSince(); idle && since.Before(before) {
				longest, before = c, since
			}
		}
		if longest == nil {
			return false
		}
		if longest.drop() {
			s.forget(longest)
			s.log().Debug("closed an idle connection to make room", "remote", longest.conn.RemoteAddr())
			return true
		}
	}
}

// afford adds n bytes, which may be negative, to the unfinished lines, and
// reports whether that is within the limit.
func (s *Server) afford(n int) bool {
	if all := s.unfinished.Add(int64(n)); n > 0 && all > int64(cmpOr(s.MaxUnfinished, DefaultMaxUnfinished)) {
		s.unfinished.Add(-int64(n))
		return false
	}
	return true
}

// hostOf returns the address for which a connection counts. Those of this
// machine do not count: a proxy or a test may have many.
func hostOf(conn net.Conn) netip.Addr {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	host := tcp.AddrPort().Addr().Unmap()
	if host.IsLoopback() {
		return netip.Addr{}
	}
	return host
}

// outOfFiles reports whether err says that this process or machine has no file
// descriptor left.
func outOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// refuseConn says why a connection is closed, if that is possible without
// waiting.
func refuseConn(conn net.Conn, why string) {
	defer conn.Close()
	if conn.SetWriteDeadline(time.Now().Add(100*time.Millisecond)) == nil {
		_, _ = conn.Write(appendEvent(nil, []byte{'{'}, eventOverloaded, why)) // best effort: closing says enough
	}
}
