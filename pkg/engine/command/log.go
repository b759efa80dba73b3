package command

import (
	"context"
	"log/slog"
)

// mayPanic is a [slog.Handler] of the user whose panics are survived: the engine
// logs from goroutines of its own, where they would end the process.
type mayPanic struct{ slog.Handler }

// newLogger returns a logger to l that never panics; nil logs nothing.
func newLogger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(mayPanic{l.Handler()})
}

// Enabled implements [slog.Handler].
func (h mayPanic) Enabled(ctx context.Context, level slog.Level) bool {
	defer func() { _ = recover() }() // there is nowhere to log it
	return h.Handler.Enabled(ctx, level)
}

// Handle implements [slog.Handler].
func (h mayPanic) Handle(ctx context.Context, r slog.Record) error {
	defer func() { _ = recover() }() // as above
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (h mayPanic) WithAttrs(attrs []slog.Attr) slog.Handler {
	return mayPanic{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements [slog.Handler].
func (h mayPanic) WithGroup(name string) slog.Handler {
	return mayPanic{h.Handler.WithGroup(name)}
}
