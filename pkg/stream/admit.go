package stream

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// refusal is why a request is not taken, or is handed back, in words of its own.
type refusal struct {
	kind error
	text string
}

func (r *refusal) Error() string { return r.text }

func (r *refusal) Unwrap() error { return r.kind }

// errNotReading hands a stream back whose client takes nothing for too long.
var errNotReading error = &refusal{ErrDraining, "client is not reading"}

// SetNames says which records this server answers for, each as
// "namespace/component/endpoint/id". From then on it refuses requests whose
// [Request.To] is another one with [Misdirected]; without names, as at first, it
// pays To no heed. It may be called at any time.
func (s *Server) SetNames(names ...string) {
	names = slices.Clone(names)
	s.names.Store(&names)
}

// maxNames is how many of its names a server tells a client that was misdirected.
const maxNames = 8

// misdirected returns why a line that is meant for to is not for this server, or nil.
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

// askAdmit asks the user's Admit.
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

// tellRefused tells the user's Refused.
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

// standing says why a line that is meant for to is no good here, or nil: the
// answer to a ping.
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

// isRefusal reports whether err means that a request was not taken, for a reason
// that is not the request's own.
func isRefusal(err error) bool {
	return errors.Is(err, ErrOverloaded) || errors.Is(err, ErrUnresumable) || errors.Is(err, Misdirected)
}
