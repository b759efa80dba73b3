package cmd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/fault"
)

// parseSpawn reads the --spawn flags, NAME=FAILURE-MODE each.
func parseSpawn(specs []string) ([]backendConfig, error) {
	configs := make([]backendConfig, 0, len(specs))
	for _, spec := range specs {
		name, modeText, ok := strings.Cut(spec, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("--spawn %q: the form is NAME=FAILURE-MODE, such as server1=always", spec)
		}
		mode, err := fault.ParseMode(modeText)
		if err != nil {
			return nil, fmt.Errorf("--spawn %q: %w", spec, err)
		}
		configs = append(configs, backendConfig{
			name: name, listen: "127.0.0.1:0",
			handler: stream.Echo(name, 0),
			fault:   fault.Fault{Mode: mode, After: defaultFailureAfter},
		})
	}
	return configs, nil
}

// spawn runs servers in this process. It returns what stops them, also with an
// error; see backend.stop for what that returns.
func spawn(ctx context.Context, c common, store discovery.Store, configs []backendConfig) (stop func() (undone, err error), err error) {
	var running []*backend
	stop = func() (undone, err error) {
		// The request is over: whatever still runs is nobody's.
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		for _, b := range running {
			_, u, e := b.stop(ctx)
			undone, err = errors.Join(undone, u), errors.Join(err, e)
		}
		return undone, err
	}
	for _, cfg := range configs {
		b, err := startBackend(ctx, c, store, cfg)
		if err != nil {
			return stop, err
		}
		running = append(running, b)
	}
	return stop, nil
}

func completeSpawn(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	name, _, ok := strings.Cut(typed, "=")
	if !ok {
		return nil, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	}
	var values []string
	for _, mode := range fault.ModeNames() {
		values = append(values, name+"="+mode)
	}
	return values, cobra.ShellCompDirectiveNoFileComp
}
