package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// usageError is an error in the command line, the environment or the configuration file.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// UsageError marks err as an error in how the command was called: it decides the exit
// code, and the message then points to --help.
func UsageError(err error) error { return usageError{err} }

// IsUsageError reports whether err is, or wraps, one that [UsageError] made.
func IsUsageError(err error) bool {
	_, ok := errors.AsType[usageError](err)
	return ok
}

// Invalid returns the usage error for a flag's value. It names the place that has to be
// corrected: the flag, a variable or the configuration file.
func Invalid(cmd *cobra.Command, flag string, err error) error {
	source := "--" + flag
	if s := cmd.Flags().Lookup(flag).Annotations[sourceKey]; len(s) > 0 {
		source = s[0]
	}
	return UsageError(fmt.Errorf("%s: %w", source, err))
}

// NotNegative returns a usage error if a value is below 0. The keys are the names of the
// flags.
func NotNegative(flags map[string]int64) error {
	for name, n := range flags {
		if n < 0 {
			return UsageError(fmt.Errorf("--%s is below 0: it must be 0 or more", name))
		}
	}
	return nil
}
