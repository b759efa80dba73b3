package outlet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
)

// ErrReaderGone is the error of a command whose standard output nobody reads any more.
// It is not printed: the SIGPIPE of a write would end the command silently, too.
var ErrReaderGone = errors.New("the reader of standard output has gone")

// WhileRead returns a context that ends when out cannot be written to any more: when a
// write has failed, or with ErrReaderGone as its cause when nobody reads the pipe any
// more. A write would notice the latter too, but the next may be hours away. stop
// releases the context.
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
	// If there is no pipe the next write notices instead.
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
