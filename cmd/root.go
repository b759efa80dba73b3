// Package cmd is the migrate command: flags, wiring and printing.
package cmd

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/request-migration/migrate/cmd/gateway"
	"github.com/request-migration/migrate/cmd/instances"
	"github.com/request-migration/migrate/cmd/internal/cli"
	"github.com/request-migration/migrate/cmd/internal/outlet"
	"github.com/request-migration/migrate/cmd/internal/term"
	"github.com/request-migration/migrate/cmd/request"
	"github.com/request-migration/migrate/cmd/serve"
)

// Main runs the command line of this process and returns its exit code.
func Main() int {
	root := newRoot()
	stdout, stderr := outlet.NewAnswers(root.OutOrStdout()), outlet.NewLog(root.ErrOrStderr())
	defer stdout.Close()
	defer stderr.Close()
	root.SetOut(stdout)
	root.SetErr(stderr)
	ran := false
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		ran = true
		return cli.LoadSettings(cmd)
	}
	cmd, err := root.ExecuteContextC(context.Background())
	if err == nil {
		return exitOK
	}
	if !ran {
		// Cobra refused the command line before the command ran.
		err = cli.UsageError(err)
	}
	if errors.Is(err, outlet.ErrReaderGone) {
		return exitReaderGone
	}
	message := err.Error()
	if exitCode(err) == exitUsage {
		message += fmt.Sprintf(` (see "%s --help")`, cmd.CommandPath())
	}
	_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "Error: "+term.OneLine(message)) // there is nowhere to report a failure to
	return exitCode(err)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "migrate",
		Short: "Streaming requests that outlive their server",
		Long: `migrate serves streaming requests, makes them, and carries them on at another
server when the stream breaks.

Flags come first, then the environment, then the file that --config names.`,
		Example: `  # The whole system in one process: server1 fails, the request migrates.
  migrate request hello --spawn server1=always --spawn server2=never --instance server1

  # The same with a process each.
  SERVER_NAME=server1 FAILURE_MODE=always migrate serve &
  SERVER_NAME=server2 FAILURE_MODE=never migrate serve &
  migrate request hello --wait-restore 10s
  migrate instances`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(serve.NewCommand(), request.NewCommand(), instances.NewCommand(), gateway.NewCommand())
	cli.AddCommonFlags(root)
	strictHelp(root)
	return root
}

// strictHelp makes "help WORD" fail where WORD is not a command, as WORD itself does.
// Cobra's own help command prints other help then, and succeeds.
func strictHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	help, _, err := root.Find([]string{"help"})
	if err != nil {
		panic(err) // it was just added
	}
	help.Args = func(_ *cobra.Command, args []string) error {
		_, _, err := root.Find(args)
		return err
	}
}

// version returns the version and the revision that the binary was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && !strings.Contains(v, s.Value[:min(12, len(s.Value))]) {
			v += " (" + s.Value[:min(12, len(s.Value))] + ")"
		}
	}
	return v
}
