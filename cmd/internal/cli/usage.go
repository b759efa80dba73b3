package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// usageError is a mistake in how the command was called.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// UsageError makes err a mistake in how the command was called.
func UsageError(err error) error { return usageError{err} }

// IsUsageError reports whether err is a mistake in how the command was called.
func IsUsageError(err error) bool {
	_, ok := errors.AsType[usageError](err)
	return ok
}

// Invalid is the error of a flag's value. It names what has to be mended.
func Invalid(cmd *cobra.Command, flag string, err error) error {
	source := "--" + flag
	if s := cmd.Flags().Lookup(flag).Annotations[sourceKey]; len(s) > 0 {
		source = s[0]
	}
	return UsageError(fmt.Errorf("%s: %w", source, err))
}

// NotNegative checks flags that count or last.
func NotNegative(flags map[string]int64) error {
	for name, n := range flags {
		if n < 0 {
			return UsageError(fmt.Errorf("--%s is below 0: it must be 0 or more", name))
		}
	}
	return nil
}
