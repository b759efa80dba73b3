package stream_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/request-migration/migrate/pkg/stream"
)

// What ended a dial is not the caller's context, and does not look like it.
func TestBreakIsNoContextError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := func(ctx context.Context, addr string) (net.Conn, error) {
			<-ctx.Done()
			return nil, &net.OpError{Op: "dial", Net: addr, Err: ctx.Err()}
		}
		_, err := items(t.Context(), newClient(t, &stream.Client{Dial: dial}), "there", text("x"))
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			t.Errorf("%v is taken for the end of the caller's context", err)
		}
		if op, ok := errors.AsType[*net.OpError](err); !errors.Is(err, stream.Unreachable) || !ok || op.Net != "there" {
			t.Errorf("%v has lost its kind or its cause", err)
		}
	})
	b := &stream.Break{Kind: stream.Unreachable, Err: fmt.Errorf("%w: %w", context.Canceled, net.ErrClosed)}
	if errors.Is(b, context.Canceled) || !errors.Is(b, net.ErrClosed) {
		t.Errorf("%v is cancelled, or not closed", b)
	}
}

// A server without a handler is told so at once, not at a client's request.
func TestServeWithoutHandler(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if v := recover(); !strings.Contains(fmt.Sprint(v), "Server.Handler") {
			t.Errorf("Serve panicked with %v, want the field's name", v)
		}
	}()
	_ = new(stream.Server).Serve(l)
	t.Error("Serve returned")
}

// A handler can tell a client that has gone from one that has cancelled.
func TestCauseOfHandlersEnd(t *testing.T) {
	for name, tt := range map[string]struct {
		leave func(*peer)
		want  error
	}{
		"gone":      {func(p *peer) { p.Close() }, stream.ErrClientGone},
		"cancelled": {func(p *peer) { p.say(`{"stream":1,"event":"cancel"}`) }, stream.ErrCancelled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cause := make(chan error, 1)
				p := pipePeer(t, &stream.Server{Handler: func(ctx context.Context, _ *stream.Request, _ func(stream.Annotated) error) error {
					<-ctx.Done()
					cause <- context.Cause(ctx)
					return ctx.Err()
				}})
				p.say(`{"stream":1,"data":"x"}`)
				p.expect(`{"stream":1,"event":"start","id":"0"}`)
				tt.leave(p)
				if err := await(t, cause, "the end of a handler"); !errors.Is(err, tt.want) || !errors.Is(err, context.Canceled) {
					t.Errorf("the handler's context ended with %v, want %v", err, tt.want)
				}
			})
		})
	}
}
