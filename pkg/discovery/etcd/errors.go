package etcd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// errLeaseLost says that etcd no longer knows the lease of the kept records.
var errLeaseLost = errors.New("lease lost")

// noAnswer is the cause of a request's end by its own timeout.
type noAnswer time.Duration

func (e noAnswer) Error() string { return fmt.Sprintf("no answer within %v", time.Duration(e)) }

// A plainError reads as a person wants it and unwraps to the error it is about.
type plainError struct {
	text string
	err  error
}

func (e *plainError) Error() string { return e.text }
func (e *plainError) Unwrap() error { return e.err }

// explain returns the cause of err, which ended a request under ctx: why ctx
// was ended, if it was, and otherwise what gRPC wraps, without the wrapping.
func explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	err = rpctypes.Error(err)
	if _, served := errors.AsType[rpctypes.EtcdError](err); served {
		return err
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	text := unquote(s.Message())
	if silent(text) {
		text = noAnswer(connectTimeout).Error()
	}
	return &plainError{text: text, err: err}
}

// silent reports whether a connection failed because the other end took it and
// said nothing until this one closed it. It goes by the text, which is all that
// gRPC passes on.
func silent(text string) bool {
	for begin, end := range map[string]string{
		"error reading server preface: ":    net.ErrClosed.Error(),
		"authentication handshake failed: ": context.DeadlineExceeded.Error(),
	} {
		if strings.HasPrefix(text, begin) && strings.HasSuffix(text, end) {
			return true
		}
	}
	return false
}

// unquote takes the cause out of gRPC's connection errors, which read
//
//	connection error: desc = "transport: authentication handshake failed: …"
func unquote(text string) string {
	_, quoted, found := strings.Cut(text, "desc = ")
	if !found {
		return text
	}
	inner, err := strconv.Unquote(quoted)
	if err != nil {
		return text
	}
	inner = strings.TrimPrefix(inner, "transport: ")
	return strings.TrimPrefix(inner, "Error while dialing: ")
}

// transient reports whether a request that failed with err may do better if it
// is repeated: nobody answered, or etcd refused it in passing.
func transient(err error) bool {
	return unanswered(err) || errors.Is(err, errLeaseLost) || unavailable(err) || refusedInPassing(err)
}

// refusedInPassing reports whether etcd itself has refused a request for what
// passes: no leader or another one, too much to do, a member that is still
// catching up, a revision that it has moved on from.
func refusedInPassing(err error) bool {
	served, ok := errors.AsType[rpctypes.EtcdError](err)
	if !ok {
		return false
	}
	switch served {
	case rpctypes.ErrTooManyRequests, rpctypes.Error(rpctypes.ErrGRPCNotSupportedForLearner), rpctypes.ErrNotLeader,
		rpctypes.ErrAuthOldRevision, rpctypes.ErrCompacted, rpctypes.ErrFutureRev:
		return true
	}
	return served.Code() == codes.Unavailable
}

// unanswered reports whether a request ended by its own timeout. That the
// other end or gRPC may notice a moment before the context here does.
func unanswered(err error) bool {
	if _, ok := errors.AsType[noAnswer](err); ok {
		return true
	}
	plain, ok := errors.AsType[*plainError](err)
	return ok && status.Code(plain.err) == codes.DeadlineExceeded
}

// unavailable reports whether there was no connection to send a request on.
func unavailable(err error) bool {
	plain, ok := errors.AsType[*plainError](err)
	return ok && status.Code(plain.err) == codes.Unavailable
}

// causes are those of one outage that have been told of. The zero causes has
// none.
type causes map[string]struct{}

// add reports whether err is a cause of another kind than those before it.
func (c *causes) add(err error) bool {
	kind := kindOf(err)
	if _, told := (*c)[kind]; told {
		return false
	}
	if *c == nil {
		*c = make(causes)
	}
	(*c)[kind] = struct{}{}
	return true
}

// kindOf is one for all that etcd's absence may look like, which changes from
// try to try, and else the text without its numbers, such as times and ports.
func kindOf(err error) string {
	text := err.Error()
	refused := strings.Contains(text, "tls: ") || strings.Contains(text, "x509: ")
	if transient(err) && !refused {
		return "away"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, text)
}
