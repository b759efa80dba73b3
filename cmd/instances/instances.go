// Package instances is the instances command: it shows who is alive, who gets
// requests, and why the others do not.
package instances

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/request-migration/migrate/cmd/internal/cli"
	"github.com/request-migration/migrate/cmd/internal/outlet"
	"github.com/request-migration/migrate/cmd/internal/term"
	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
)

type options struct {
	output   string
	watch    bool
	probe    bool
	all      bool
	cooldown time.Duration
}

// NewCommand returns the instances command.
func NewCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "instances",
		Short: "Show who is alive, who gets requests, and why the others don't",
		Long: `instances lists the instances of the endpoint: those that discovery lists
(source) and of these the ones that requests go to (avail). For one that is down
it says what kind of break was reported, how long ago, when the instance returns,
who reported it, and the reason in full.

--watch goes on until q or Ctrl-C. On a terminal it keeps a live table, elsewhere
it prints a line for each change: joined, left, down, restored, and stale and
fresh when the store can't be read and can be read again.

--probe asks the server of each instance whether it lives and is the one of the
record, and shows how long the answer took, or what kind of break there was in
place of one. That is no request: no handler runs for it.

--all shows every endpoint of the namespace that has instances, such as those of
the models behind migrate serve --openai.`,
		Example: `  migrate instances
  migrate instances --output json
  migrate instances --probe
  migrate instances --all`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd, o) },
	}
	flags := cmd.Flags()
	flags.StringVar(&o.output, "output", "table", "what to print: "+strings.Join(outputs(), ", "))
	flags.BoolVar(&o.watch, "watch", false, "go on, and show what changes")
	flags.BoolVar(&o.probe, "probe", false, fmt.Sprintf("also ask each instance, for %v to connect and %[1]v to answer at most", probeTimeout))
	flags.BoolVar(&o.all, "all", false, "show every endpoint of the namespace, which is the first part of --endpoint")
	flags.DurationVar(&o.cooldown, "cooldown", router.DefaultCooldown, "how long a report is heeded at most, as by request with the same --cooldown")
	cli.Complete(cmd, "output", outputs()...)
	return cmd
}

func outputs() []string { return []string{"table", "json"} }

func run(cmd *cobra.Command, o options) (err error) {
	if !slices.Contains(outputs(), o.output) {
		return cli.Invalid(cmd, "output", fmt.Errorf("unknown output %q: valid are %s", o.output, strings.Join(outputs(), ", ")))
	}
	if o.watch && o.probe {
		return cli.UsageError(errors.New("--probe asks once and --watch goes on: choose one of them"))
	}
	if o.watch && o.all {
		return cli.UsageError(errors.New("--watch follows one endpoint and --all shows every one: choose one of them, and the endpoint with --endpoint"))
	}
	if o.cooldown <= 0 {
		return cli.UsageError(fmt.Errorf("--cooldown is %v: it must be above 0", o.cooldown))
	}
	live := o.watch && o.output == "table" && canRedraw(cmd.OutOrStdout())
	if live {
		defer holdLog(cmd)()
	}
	c, err := cli.ReadCommon(cmd, "warn")
	if err != nil {
		return err
	}
	if c.Store == "mem" {
		return cli.UsageError(errors.New("--store-kv mem is seen by the process that has it alone: choose --store-kv file"))
	}
	ctx, stop := cli.UntilEnded(cmd, &err)
	defer stop()
	store, err := c.OpenStore(ctx)
	if err != nil {
		return err
	}
	defer func() { c.LeaveStore("instances", store, nil) }()
	registry := discovery.NewRegistry(store, c.Logs.For("discovery"))
	switch {
	case o.all:
		return showAll(ctx, c, registry, o, cmd.OutOrStdout(), cmd.ErrOrStderr())
	case live:
		return follow(ctx, registry, c, o.cooldown, func(ctx context.Context, f *feed) error {
			return watchLive(ctx, f, cmd.InOrStdin(), cmd.OutOrStdout())
		})
	case o.watch:
		return follow(ctx, registry, c, o.cooldown, func(ctx context.Context, f *feed) error {
			return watchLines(ctx, f, cmd.OutOrStdout(), cmd.ErrOrStderr(), o.output == "json")
		})
	}
	view, err := look(ctx, registry, c.Endpoint, o.cooldown)
	if err == nil && o.probe {
		view.probeAll(ctx, c.Logs.For("stream"))
	}
	if err != nil {
		return err
	}
	view.where = c.Where()
	if nobody := view.nobody(); nobody != "" && o.output == "table" {
		cmd.PrintErrln(nobody)
	}
	return view.write(ctx, cmd.OutOrStdout(), o.output)
}

// look returns the current view.
func look(ctx context.Context, registry *discovery.Registry, endpoint discovery.Endpoint, cooldown time.Duration) (instancesView, error) {
	list, err := registry.List(ctx, endpoint)
	if err != nil {
		return instancesView{}, fmt.Errorf("listing the instances of %v: %w", endpoint, err)
	}
	return withReports(ctx, registry, endpoint, list, cooldown), nil
}

// withReports returns the view of a list, with the reports that stand now.
func withReports(ctx context.Context, registry *discovery.Registry, endpoint discovery.Endpoint, list discovery.Instances, cooldown time.Duration) instancesView {
	reports, err := registry.ListReports(ctx, endpoint, cooldown)
	if err != nil {
		reports.Stale = err // the instances are worth showing without reports
	}
	return newInstancesView(endpoint, list, reports, time.Now())
}

// write prints v as a table or as JSON.
func (v instancesView) write(ctx context.Context, w io.Writer, output string) error {
	var text []byte
	if output == "json" {
		text = v.appendJSON(nil)
	} else {
		for _, line := range v.tableLines(newPalette(w), term.Width(w), time.Now()) {
			text = append(append(text, line...), '\n')
		}
	}
	if err := outlet.Write(ctx, w, text); err != nil {
		return fmt.Errorf("writing the instances: %w", err)
	}
	return nil
}
