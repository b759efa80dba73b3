package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/request-migration/migrate/cmd/internal/outlet"
)

// doubled is how long after a signal the same one is that signal delivered twice,
// not a second one: GNU timeout sends it to its child and then to the whole group.
// Nobody presses Ctrl-C again that soon and means it.
const doubled = time.Second

// ErrInterrupted ends a command that a signal has asked to end.
var ErrInterrupted = errors.New("interrupted")

// interruptible returns a context that SIGINT and SIGTERM end, with ErrInterrupted
// as its cause. A second signal ends the process, whatever it is doing.
func interruptible(parent context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals, stopped := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	var heeding sync.WaitGroup
	heeding.Go(func() {
		var first os.Signal
		select {
		case first = <-signals:
		case <-stopped:
			return
		}
		cancel(ErrInterrupted)
		for _, other := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
			if other != first {
				signal.Reset(other)
			}
		}
		select {
		case <-time.After(doubled):
			signal.Reset(first)
		case <-stopped: // the process is about to end
		}
	})
	return ctx, func() {
		close(stopped)
		heeding.Wait()
		cancel(nil)
	}
}

// UntilEnded returns a context that ends when a signal asks the command to, or
// when nobody reads its standard output any more. If it has ended, stop makes that
// the command's error in place of what came of it.
func UntilEnded(cmd *cobra.Command, err *error) (_ context.Context, stop func()) {
	interrupted, stopHeeding := interruptible(cmd.Context())
	ctx, stopWaiting := outlet.WhileRead(interrupted, Answers(cmd))
	return ctx, func() {
		if *err != nil && ctx.Err() != nil {
			*err = context.Cause(ctx)
		}
		stopWaiting()
		stopHeeding()
	}
}

// drainSignals are the signals that ask a server to end. SIGHUP comes when its
// terminal closes; nohup ignores it so that the server goes on.
func drainSignals() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// Drainable returns a context that the first of drainSignals ends, with an
// askedToEnd as its cause, and a channel that yields the second.
func Drainable(parent context.Context) (_ context.Context, insisted <-chan os.Signal, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	// Room for what may come before the first is heeded, each kind twice.
	signals := make(chan os.Signal, 6)
	signal.Notify(signals, drainSignals()...)
	second := make(chan os.Signal, 1)
	var heeding sync.WaitGroup
	heeding.Go(func() {
		heedTwice(signals, func(sig os.Signal) { cancel(askedToEnd{sig}) }, func(sig os.Signal) { second <- sig })
	})
	return ctx, second, func() {
		signal.Stop(signals)
		close(signals)
		heeding.Wait()
		cancel(nil)
	}
}

// askedToEnd is the cause of a context that a signal has ended.
type askedToEnd struct{ signal os.Signal }

// Error names the signal.
func (e askedToEnd) Error() string { return e.signal.String() }

// heedTwice calls first with the first signal and second with the second: the
// next that is another one, or the same no sooner than doubled after the first. It
// returns then, or when signals is closed.
func heedTwice(signals <-chan os.Signal, first, second func(os.Signal)) {
	one, ok := <-signals
	if !ok {
		return
	}
	came := time.Now()
	first(one)
	for sig := range signals {
		if sig != one || time.Since(came) >= doubled {
			second(sig)
			return
		}
	}
}

// OutliveReaders lets the process live on when nobody reads its standard output or
// standard error any more: a write then fails, and without this SIGPIPE would end
// the process. To ignore the signal would make every child ignore it too.
func OutliveReaders() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
}
