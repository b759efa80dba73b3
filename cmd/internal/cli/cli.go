// Package cli is what the commands share: their common flags, the store, signals,
// and mistakes in how they were called.
package cli

import (
	"github.com/spf13/cobra"

	"github.com/request-migration/migrate/cmd/internal/outlet"
)

// Answers returns the command's standard output.
func Answers(cmd *cobra.Command) *outlet.Outlet { return cmd.OutOrStdout().(*outlet.Outlet) }

// Complete makes the shell offer values for a flag.
func Complete(cmd *cobra.Command, flag string, values ...string) {
	err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // the flag's name is wrong, here in the code
	}
}
