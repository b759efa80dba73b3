package stream

import (
	"fmt"
	"net"
	"time"
)

// admit takes a place for a request, or returns why it is refused.
func (s *Server) admit(req Request) error {
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

	var err error
	if req.From > 0 && !s.Resumes {
		err = fmt.Errorf("cannot start at item %d: this server starts at the first only", req.From)
	} else if s.Admit != nil {
		err = s.Admit(req)
	}
	if err != nil {
		s.release()
	}
	return err
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

// refuseConn says why a connection is closed, if that can be said at once.
func refuseConn(conn net.Conn, why string) {
	defer conn.Close()
	if conn.SetWriteDeadline(time.Now().Add(100*time.Millisecond)) == nil {
		_, _ = conn.Write(appendEvent(nil, []byte{'{'}, eventOverloaded, why)) // best effort: closing says enough
	}
}
