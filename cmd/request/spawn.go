package request

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/request-migration/migrate/cmd/internal/backend"
	"github.com/request-migration/migrate/cmd/internal/cli"
	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/fault"
)

// parseSpawn parses the values of --spawn, each NAME=FAILURE-MODE.
func parseSpawn(specs []string) ([]backend.Config, error) {
	configs := make([]backend.Config, 0, len(specs))
	for _, spec := range specs {
		name, modeText, ok := strings.Cut(spec, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("--spawn %q: the form is NAME=FAILURE-MODE, such as server1=always", spec)
		}
		mode, err := fault.ParseMode(modeText)
		if err != nil {
			return nil, fmt.Errorf("--spawn %q: %w", spec, err)
		}
		configs = append(configs, backend.Config{
			Name: name, Listen: "127.0.0.1:0",
			Handler: stream.Echo(name, 0), Engine: backend.Echo, Resume: discovery.ResumeIndex,
			Fault: fault.Fault{Mode: mode, After: backend.DefaultFailureAfter},
		})
	}
	return configs, nil
}

// spawn starts servers in this process. stop ends those that run, and is to be called after
// an error too; it returns what [backend.Backend.Stop] does.
func spawn(ctx context.Context, c cli.Common, store discovery.Store, configs []backend.Config) (stop func() (undone, err error), err error) {
	var running []*backend.Backend
	stop = func() (undone, err error) {
		// The requests are over: nobody waits for streams that still run.
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		for _, b := range running {
			_, u, e := b.Stop(ctx)
			undone, err = errors.Join(undone, u), errors.Join(err, e)
		}
		return undone, err
	}
	for _, cfg := range configs {
		b, err := backend.Start(ctx, c, store, cfg)
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
