package cmd

import (
	"errors"

	"github.com/request-migration/migrate/pkg/router"
)

// The exit codes.
const (
	exitOK             = 0
	exitFailure        = 1
	exitUsage          = 2
	exitNoInstances    = 3
	exitAttemptsUsedUp = 4
	exitInterrupted    = 130 // 128 + SIGINT, as shells have it
	exitReaderGone     = 141 // 128 + SIGPIPE
)

// usageError is a mistake in how the command was called.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// errInterrupted ends a command that a signal has asked to end.
var errInterrupted = errors.New("interrupted")

// errReaderGone ends a command whose standard output nobody reads any more. It is
// not told of, as SIGPIPE is not, by which a write ends the command.
var errReaderGone = errors.New("the reader of standard output has gone")

func exitCode(err error) int {
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	case errors.Is(err, errReaderGone):
		return exitReaderGone
	case errors.Is(err, router.ErrNoInstances):
		return exitNoInstances
	case errors.Is(err, router.ErrAttemptsUsedUp):
		return exitAttemptsUsedUp
	}
	return exitFailure
}
