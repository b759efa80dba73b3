package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/internal/remote"
)

// explain returns the cause of err, which ended a request under ctx: the cause of ctx's
// end if it has ended, and otherwise err, in words that help.
func (s *Store) explain(ctx context.Context, verb string, err error) error {
	if err == nil {
		return nil
	}
	// A server that has answered has said why, even if the time is up now.
	if _, answered := errors.AsType[*apierrors.StatusError](err); !answered {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	switch {
	case apierrors.IsForbidden(err):
		return &remote.PlainError{Err: err, Text: fmt.Sprintf(
			"no permission to %s leases (coordination.k8s.io) in namespace %s, which the Role in docs/kubernetes/role.yaml grants: %v",
			verb, s.namespace, err)}
	case apierrors.IsUnauthorized(err):
		return &remote.PlainError{Err: err, Text: "the API server does not accept the credentials: " + err.Error()}
	case apierrors.IsNotFound(err) && strings.Contains(err.Error(), "namespaces"):
		return &remote.PlainError{Err: err, Text: fmt.Sprintf("there is no namespace %s: %v", s.namespace, err)}
	}
	return err
}

// transient reports whether a request that failed with err may succeed if it is
// repeated: nobody answered, or the API server refused it for a passing reason.
func transient(err error) bool {
	status, answered := errors.AsType[*apierrors.StatusError](err)
	if !answered {
		return unanswered(err) && !untrusted(err)
	}
	code := status.ErrStatus.Code
	return code == http.StatusTooManyRequests || code >= http.StatusInternalServerError ||
		apierrors.IsConflict(err) || apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err)
}

// unanswered reports whether a request got no answer, or not the whole of one.
func unanswered(err error) bool {
	if _, silent := errors.AsType[remote.NoAnswer](err); silent {
		return true
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, discovery.ErrClosed) {
		return false
	}
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNREFUSED) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) || strings.Contains(err.Error(), "http2: ")
}

// maxRetryAfter bounds how long a request waits because the API server asked it to. With
// the longest pause a record is still renewed in time.
const maxRetryAfter = 5 * time.Second

// askedBy returns how long the API server asks to wait in an error.
func askedBy(err error) time.Duration {
	seconds, ok := apierrors.SuggestsClientDelay(err)
	if !ok {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxRetryAfter)
}

// kindOf returns the kind of a cause: an API server that is away has one, whatever it looks
// like.
func kindOf(err error) string { return remote.KindOf(err, transient(err)) }

// pointer returns an annotation's name as a JSON pointer has it.
func pointer(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}
