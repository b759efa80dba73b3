package cmd

import (
	"context"
	"fmt"
	"os"
	"sync"
)

// whileRead returns a context that ends when out can't be written to any more:
// with errReaderGone as its cause if it is a pipe that nobody reads, which a write
// would find out, but the next may be hours away; and when a write has failed.
func whileRead(parent context.Context, out *outlet) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		select {
		case <-out.failed:
			cancel(fmt.Errorf("writing standard output: %w", out.flush(ctx)))
		case <-ctx.Done():
		}
	})
	wake := func() {}
	// Without such a pipe the next write finds it out.
	if stopped, w, err := os.Pipe(); err == nil {
		wake = func() { _ = w.Close() }
		waiting.Go(func() {
			if f := fileOf(out); f != nil && readerGone(f, stopped) {
				cancel(errReaderGone)
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
