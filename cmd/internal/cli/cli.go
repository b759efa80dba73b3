// Package cli holds what the commands share: common flags and where their values come
// from, the store, signals, and usage errors.
package cli

import (
	"github.com/spf13/cobra"

	"github.com/request-migration/migrate/cmd/internal/outlet"
)

// Answers returns the command's standard output. It panics in a command that was not
// started by cmd.Main.
func Answers(cmd *cobra.Command) *outlet.Outlet { return cmd.OutOrStdout().(*outlet.Outlet) }

// Complete makes the shell offer values for a flag of cmd. It panics if there is no such
// flag.
func Complete(cmd *cobra.Command, flag string, values ...string) {
	err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // a flag's name is misspelled in this program
	}
}
