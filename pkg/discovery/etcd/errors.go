package etcd

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/request-migration/migrate/pkg/discovery/internal/remote"
)

// errLeaseLost says that etcd no longer knows the lease of the kept records.
var errLeaseLost = errors.New("lease lost")

// explain returns the cause of err, which ended a request under ctx: the cause of
// ctx's end if it has ended, and otherwise err without what gRPC wraps around it.
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
		text = remote.NoAnswer(connectTimeout).Error()
	}
	return &remote.PlainError{Text: text, Err: err}
}

// silent reports whether a connection failed because the server accepted it and then
// sent nothing. It goes by the text, which is all that gRPC passes on.
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

// transient reports whether a request that failed with err may succeed if it is
// repeated: nobody answered, or etcd refused it for a passing reason.
func transient(err error) bool {
	return unanswered(err) || errors.Is(err, errLeaseLost) || unavailable(err) || refusedInPassing(err)
}

// refusedInPassing reports whether etcd itself refused a request for a passing
// reason: no leader or a new one, overload, a member that is still catching up, or a
// revision that was compacted.
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

// unanswered reports whether a request ended by its own timeout. The server or gRPC
// may notice that a moment before the context here ends.
func unanswered(err error) bool {
	if _, ok := errors.AsType[remote.NoAnswer](err); ok {
		return true
	}
	plain, ok := errors.AsType[*remote.PlainError](err)
	return ok && status.Code(plain.Err) == codes.DeadlineExceeded
}

// unavailable reports whether a request failed for want of a connection.
func unavailable(err error) bool {
	plain, ok := errors.AsType[*remote.PlainError](err)
	return ok && status.Code(plain.Err) == codes.Unavailable
}

// kindOf returns the kind of a cause: an etcd that is away has one, whatever it looks like.
func kindOf(err error) string {
	text := err.Error()
	refused := strings.Contains(text, "tls: ") || strings.Contains(text, "x509: ")
	return remote.KindOf(err, transient(err) && !refused)
}
