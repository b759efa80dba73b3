package outlet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
)

// ErrReaderGone ends a command whose standard output nobody reads any more. It is
// not told of, as SIGPIPE is not, by which a write ends the command.
var ErrReaderGone = errors.New("the reader of standard output has gone")

// WhileRead returns a context that ends when out can't be written to any more:
// with ErrReaderGone as its cause if it is a pipe that nobody reads, which a write
// would find out, but the next may be hours away; and when a write has failed.
func WhileRead(parent context.Context, out *Outlet) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		select {
		case <-out.failed:
			cancel(fmt.Errorf("writing standard output: %w", out.Flush(ctx)))
		case <-ctx.Done():
		}
	})
	wake := func() {}
	// Without such a pipe the next write finds it out.
	if stopped, w, err := os.Pipe(); err == nil {
		wake = func() { _ = w.Close() }
		waiting.Go(func() {
			if f := FileOf(out); f != nil && readerGone(f, stopped) {
				cancel(ErrReaderGone)
			}
			_ = stopped.Close()
		})
	}
	return ctx, func() {
		wake()
		cancel(nil)
		waiting.Wait()
	}
}
