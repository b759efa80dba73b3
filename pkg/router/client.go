package router

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// A Client opens streams; [StreamClient] makes one of a [*stream.Client]. It must be
// safe for concurrent use.
//
// A Client may also have a method SaidDraining(discovery.Instance) bool, which reports
// whether a server has said on any connection that it is draining. Such a server is
// not kept as lost when discovery no longer lists it.
type Client interface {
	// Stream opens the stream of one attempt at i and yields its items. The sequence
	// ends without an error if the answer is complete; else its last pair is the
	// error. These errors, alone or wrapped, are breaks, and are judged: a
	// [*stream.Break], a [stream.Kind], and those that a [stream.Handler] returns
	// ([stream.ErrFailed] and its siblings, [*stream.Error]). Any other error ends the
	// request. Stream calls the request's Started hook when the instance has taken the
	// request; without that call, the first item shows it.
	Stream(ctx context.Context, i discovery.Instance, req stream.Request) iter.Seq2[stream.Annotated, error]
}

// StreamClient returns a [Client] that speaks the wire of package stream with c, which
// must not be nil and stays the caller's to close.
func StreamClient(c *stream.Client) Client {
	if c == nil {
		panic("router: StreamClient of a nil client")
	}
	return streamClient{c}
}

type streamClient struct{ client *stream.Client }

func (c streamClient) Stream(ctx context.Context, i discovery.Instance, req stream.Request) iter.Seq2[stream.Annotated, error] {
	return c.client.Stream(ctx, i.Address, req)
}

func (c streamClient) SaidDraining(i discovery.Instance) bool {
	return c.client.SaidDraining(i.Address)
}

// asBreak returns the break that a client's error is. An error that is none stays as it is.
func asBreak(err error) error {
	if _, ok := errors.AsType[*stream.Break](err); ok {
		return err
	}
	b := &stream.Break{Err: err} // whose text is the error's
	kind, isKind := errors.AsType[stream.Kind](err)
	said, isSaid := errors.AsType[*stream.Error](err)
	switch {
	case isKind:
		b.Kind = kind
		if err == error(kind) { //nolint:errorlint // the kind alone, which has no text of its own
			b.Err = nil
		}
	case errors.Is(err, stream.ErrFailed):
		b.Kind, b.NoReport, b.Silent = stream.Failed, errors.Is(err, stream.ErrFailedUnreported), errors.Is(err, stream.ErrFailedSilent)
	case errors.Is(err, stream.ErrOverloaded):
		b.Kind = stream.Overloaded
		if asked, ok := errors.AsType[interface {
			error
			RetryAfter() time.Duration
		}](err); ok {
			b.RetryAfter = asked.RetryAfter()
		}
	case errors.Is(err, stream.ErrDraining):
		b.Kind = stream.Draining
	case errors.Is(err, stream.ErrUnresumable):
		b.Kind = stream.Unresumable
	case isSaid:
		b.Kind, b.Reason, b.Data = stream.Application, err.Error(), said.Data
	default:
		return err
	}
	return b
}
