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

// doubled is how long the same signal counts as the first one delivered twice: GNU
// timeout sends it to its child and then to the whole process group. Nobody means a
// second Ctrl-C that soon.
const doubled = time.Second

// ErrInterrupted is the error of a command that a signal ended.
var ErrInterrupted = errors.New("interrupted")

// interruptible returns a context that SIGINT or SIGTERM cancels, with ErrInterrupted as
// its cause. A second signal ends the process at once.
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

// UntilEnded returns the context of a command: a signal cancels it, and so does the end
// of whoever reads the standard output. If the context has ended, stop replaces *err, if
// any, by the context's cause.
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

// drainSignals returns the signals that ask a server to end. SIGHUP, which comes when
// the terminal closes, is one of them unless nohup has it ignored.
func drainSignals() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// Drainable returns a context that the first SIGTERM, SIGINT or SIGHUP cancels, with the
// signal's name as its cause, and a channel that yields the second signal. SIGHUP has no
// effect under nohup. stop releases both.
func Drainable(parent context.Context) (_ context.Context, insisted <-chan os.Signal, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	// Room for each kind twice, which may come before the first is received.
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

// heedTwice calls first with the first signal and second with the second one, then
// returns; it also returns when signals is closed. The same signal counts as a second
// one only if it comes doubled or more after the first.
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

// OutliveReaders keeps SIGPIPE from ending the process when nobody reads its standard
// output or standard error any more; writes fail instead. The signal is caught, not
// ignored, since child processes would inherit that.
func OutliveReaders() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
}
