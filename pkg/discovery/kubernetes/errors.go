package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
	"unicode"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/request-migration/migrate/pkg/discovery"
)

// noAnswer is the cause with which a request ends after its own timeout.
type noAnswer time.Duration

func (e noAnswer) Error() string { return fmt.Sprintf("no answer within %v", time.Duration(e)) }

// A plainError has a text for people and unwraps to the original error.
type plainError struct {
	text string
	err  error
}

func (e *plainError) Error() string { return e.text }
func (e *plainError) Unwrap() error { return e.err }

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
		return &plainError{err: err, text: fmt.Sprintf(
			"no permission to %s leases (coordination.k8s.io) in namespace %s, which the Role in docs/kubernetes/role.yaml grants: %v",
			verb, s.namespace, err)}
	case apierrors.IsUnauthorized(err):
		return &plainError{err: err, text: "the API server does not accept the credentials: " + err.Error()}
	case apierrors.IsNotFound(err) && strings.Contains(err.Error(), "namespaces"):
		return &plainError{err: err, text: fmt.Sprintf("there is no namespace %s: %v", s.namespace, err)}
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
	if _, silent := errors.AsType[noAnswer](err); silent {
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

// A backoff paces the tries during one outage: 100 ms, doubled each time, up to 1 s, so
// that the API server's return is noticed soon, or as long as the server asks for. The
// zero backoff is before the first try.
type backoff struct{ last time.Duration }

// next returns the pause after err. Half of it is random, so that a fleet which lost the
// API server at the same moment doesn't come back at the same moment.
func (b *backoff) next(err error) time.Duration {
	b.last = min(max(2*b.last, 100*time.Millisecond), time.Second)
	pause := b.last/2 + rand.N(b.last/2)
	if seconds, ok := apierrors.SuggestsClientDelay(err); ok && seconds > 0 {
		asked := min(time.Duration(seconds)*time.Second, maxRetryAfter)
		pause = max(pause, asked+rand.N(asked/10))
	}
	return pause
}

// wait pauses after err, and returns false if ctx ended.
func (b *backoff) wait(ctx context.Context, err error) bool {
	timer := time.NewTimer(b.next(err))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// causes has the kinds of causes of one outage that have been reported. The zero
// causes is empty.
type causes map[string]struct{}

// add adds the kind of err, and reports whether it is new.
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

// kindOf returns one kind for everything that an absent API server may look like, which
// differs from try to try, and otherwise the text without numbers such as times and
// ports.
func kindOf(err error) string {
	if transient(err) {
		return "away"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, err.Error())
}

// pointer returns an annotation's name as a JSON pointer has it.
func pointer(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}
