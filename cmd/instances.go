package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
)

type instancesOptions struct {
	output   string
	watch    bool
	probe    bool
	cooldown time.Duration
}

func newInstances() *cobra.Command {
	var o instancesOptions
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

--probe sends each instance that requests can go to an empty request, and shows
how long the answer took, or what kind of break there was in place of one. Such a
request counts like any other: for a server with --failure-mode first it is the
first, and since it is too short to fail, none fails after it.`,
		Example: `  migrate instances
  migrate instances --output json
  migrate instances --probe`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runInstances(cmd, o) },
	}
	flags := cmd.Flags()
	flags.StringVar(&o.output, "output", "table", "what to print: "+strings.Join(instancesOutputs(), ", "))
	flags.BoolVar(&o.watch, "watch", false, "go on, and show what changes")
	flags.BoolVar(&o.probe, "probe", false, fmt.Sprintf("also ask each instance, for %v at most", probeTimeout))
	flags.DurationVar(&o.cooldown, "cooldown", router.DefaultCooldown, "how long a report is heeded at most, as by request with the same --cooldown")
	complete(cmd, "output", instancesOutputs()...)
	return cmd
}

func instancesOutputs() []string { return []string{"table", "json"} }

func runInstances(cmd *cobra.Command, o instancesOptions) (err error) {
	if !slices.Contains(instancesOutputs(), o.output) {
		return invalid(cmd, "output", fmt.Errorf("unknown output %q: valid are %s", o.output, strings.Join(instancesOutputs(), ", ")))
	}
	if o.watch && o.probe {
		return usageError{errors.New("--probe asks once and --watch goes on: choose one of them")}
	}
	if o.cooldown <= 0 {
		return usageError{fmt.Errorf("--cooldown is %v: it must be above 0", o.cooldown)}
	}
	live := o.watch && o.output == "table" && canRedraw(cmd.OutOrStdout())
	if live {
		defer holdLog(cmd)()
	}
	c, err := readCommon(cmd, "warn")
	if err != nil {
		return err
	}
	if c.store == "mem" {
		return usageError{errors.New("--store-kv mem is seen by the process that has it alone: choose --store-kv file")}
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process, whatever it is doing.
	defer context.AfterFunc(ctx, stop)()
	store, err := c.openStore(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	registry := discovery.NewRegistry(store, c.logs.For("discovery"))
	switch {
	case live:
		return follow(ctx, registry, c.endpoint, o.cooldown, func(ctx context.Context, f *feed) error {
			return watchLive(ctx, f, cmd.InOrStdin(), cmd.OutOrStdout())
		})
	case o.watch:
		return follow(ctx, registry, c.endpoint, o.cooldown, func(ctx context.Context, f *feed) error {
			return watchLines(ctx, f, cmd.OutOrStdout(), o.output == "json")
		})
	}
	view, err := look(ctx, registry, c.endpoint, o.cooldown)
	if err == nil && o.probe {
		probeAll(ctx, view.Rows, c.logs.For("stream"))
	}
	if ctx.Err() != nil {
		return errInterrupted
	}
	if err != nil {
		return err
	}
	return view.write(cmd.OutOrStdout(), o.output)
}

// look returns the view as it is now.
func look(ctx context.Context, registry *discovery.Registry, endpoint discovery.Endpoint, cooldown time.Duration) (instancesView, error) {
	list, err := registry.List(ctx, endpoint)
	if err != nil {
		return instancesView{}, fmt.Errorf("listing the instances of %v: %w", endpoint, err)
	}
	reports, err := registry.ListReports(ctx, endpoint, cooldown)
	if err != nil {
		reports.Stale = err // who is alive is worth showing by itself
	}
	return newInstancesView(endpoint, list, reports, time.Now()), nil
}

// write prints v, as a table or as JSON.
func (v instancesView) write(w io.Writer, output string) error {
	var text []byte
	if output == "json" {
		text = v.appendJSON(nil)
	} else {
		for _, line := range v.tableLines(newPalette(w), terminalWidth(w), time.Now()) {
			text = append(append(text, line...), '\n')
		}
	}
	if _, err := w.Write(text); err != nil {
		return fmt.Errorf("writing the instances: %w", err)
	}
	return nil
}
