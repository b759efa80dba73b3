package etcd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

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
	return &plainError{text: unquote(s.Message()), err: err}
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
// is repeated: nobody answered, there was no leader, or etcd had moved on.
func transient(err error) bool {
	if unanswered(err) || errors.Is(err, errLeaseLost) || errors.Is(err, rpctypes.ErrCompacted) {
		return true
	}
	if served, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return served.Code() == codes.Unavailable
	}
	return unavailable(err)
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
