package cmd

import (
	"errors"

	"github.com/request-migration/migrate/cmd/internal/cli"
	"github.com/request-migration/migrate/cmd/internal/outlet"
	"github.com/request-migration/migrate/pkg/router"
)

// The exit codes.
const (
	exitOK             = 0
	exitFailure        = 1
	exitUsage          = 2
	exitNoInstances    = 3
	exitAttemptsUsedUp = 4
	exitInterrupted    = 130 // 128 + SIGINT, as in shells
	exitReaderGone     = 141 // 128 + SIGPIPE
)

func exitCode(err error) int {
	switch {
	case err == nil:
		return exitOK
	case cli.IsUsageError(err):
		return exitUsage
	case errors.Is(err, cli.ErrInterrupted):
		return exitInterrupted
	case errors.Is(err, outlet.ErrReaderGone):
		return exitReaderGone
	case errors.Is(err, router.ErrNoInstances):
		return exitNoInstances
	case errors.Is(err, router.ErrAttemptsUsedUp):
		return exitAttemptsUsedUp
	}
	return exitFailure
}
