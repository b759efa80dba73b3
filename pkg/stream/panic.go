package stream

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
)

// errPanicked ends a stream whose handler panicked or called runtime.Goexit, and
// so did another function of the user's that had a say in it. The client learns
// no more than that: what was panicked with may be private.
var errPanicked = errors.New("the handler panicked")

// survived logs that a function of the user's did not return: v is what recover
// gave, nil if it called runtime.Goexit. A deferred function calls it, for the
// stack to show where that was.
func (s *Server) survived(function string, req Request, v any) {
	text := "it called runtime.Goexit"
	args := []any{"function", function, "request", req.ID}
	if v != nil {
		text = "it panicked"
		args = append(args, "panic", v)
	}
	s.log().Error("a function of the server's user did not return: "+text, append(args, "stack", string(debug.Stack()))...)
}

// mayPanic is a [slog.Handler] of the user's that is survived, too.
type mayPanic struct{ slog.Handler }

func (h mayPanic) Enabled(ctx context.Context, level slog.Level) bool {
	defer func() { _ = recover() }() // there is nowhere to tell
	return h.Handler.Enabled(ctx, level)
}

func (h mayPanic) Handle(ctx context.Context, r slog.Record) error {
	defer func() { _ = recover() }() // as above
	return h.Handler.Handle(ctx, r)
}
