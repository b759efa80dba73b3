package serve

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/request-migration/migrate/cmd/internal/backend"
	"github.com/request-migration/migrate/cmd/internal/cli"
	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/engine/command"
	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/fault"
)

// engineOptions are the options that only some engines have.
type engineOptions struct {
	delay    time.Duration
	items    string
	resumeBy string
	openaiOptions
}

// engine is what answers the requests of a server.
type engine struct {
	name        string           // in records
	resume      discovery.Resume // how its instances carry an answer on
	failureMode fault.Mode       // if no other is asked for
	maxStreams  int              // if no other is asked for; 0: no limit
	maxRequest  int              // if no other is asked for; in bytes
	flags       []string         // those of engineFlags that it has

	// open starts it.
	open func(c cli.Common) (opened, error)
}

// opened is an engine that has been started.
type opened struct {
	handler stream.Handler
	// listed yields the instances that are to be registered; nil for the one of the
	// server's endpoint.
	listed func(context.Context) iter.Seq[[]discovery.Instance]
	// release ends what was started. It is called after the server has stopped.
	release func()
}

// engineFlags returns the flags that not every engine has, and where they belong.
func engineFlags() map[string]string {
	flags := map[string]string{
		"delay":     "it is for servers that echo, not for other engines",
		"items":     "it is for a command, which stands at the end, after --",
		"resume-by": "it is for a command, which stands at the end, after --, and for --openai",
	}
	for _, flag := range openaiFlags() {
		flags[flag] = "it is for --openai URL"
	}
	return flags
}

// addFlags adds the flags of engines.
func (o *engineOptions) addFlags(cmd *cobra.Command) {
	items := make([]string, 0, len(command.AllItems()))
	for _, i := range command.AllItems() {
		items = append(items, string(i))
	}
	ways := []string{string(command.ResumeIndex), string(command.ResumePrefix)}
	flags := cmd.Flags()
	flags.DurationVar(&o.delay, "delay", 0, "pause between items of an echo")
	flags.StringVar(&o.items, "items", string(command.Lines), "what a command's items are: "+strings.Join(items, ", ")+" (a value a line)")
	flags.StringVar(&o.resumeBy, "resume-by", "", "how a command promises to carry on an answer that another instance began: "+strings.Join(ways, ", ")+" (default: it does not); --openai can promise prefix")
	o.openaiOptions.addFlags(cmd)
	cli.Complete(cmd, "items", items...)
	cli.Complete(cmd, "resume-by", ways...)
}

// checkArgs checks that what stands on the command line beside flags is a command.
func checkArgs(cmd *cobra.Command, args []string) error {
	switch dash := cmd.ArgsLenAtDash(); {
	case dash == 0 && len(args) == 0:
		return errors.New("no command after --")
	case dash > 0, dash < 0 && len(args) > 0:
		return fmt.Errorf("unexpected argument %q: a command to serve stands at the end, after --", args[0])
	}
	return nil
}

// engine chooses the engine, and checks its options.
func (o *options) engine(cmd *cobra.Command, args []string) (engine, error) {
	e := o.echo()
	var err error
	switch {
	case cmd.Flags().Changed("openai") && len(args) > 0:
		return engine{}, cli.Invalid(cmd, "openai", errors.New("a command stands at the end as well: choose one of the two engines"))
	case cmd.Flags().Changed("openai"):
		e, err = o.openai(cmd)
	case len(args) > 0:
		e, err = o.command(cmd, args)
	}
	if err != nil {
		return engine{}, err
	}
	for flag, where := range engineFlags() {
		if cmd.Flags().Changed(flag) && !slices.Contains(e.flags, flag) {
			return engine{}, cli.Invalid(cmd, flag, errors.New(where))
		}
	}
	return e, nil
}

// echo returns the engine of Dynamo's example.
func (o *options) echo() engine {
	return engine{
		name: backend.Echo, resume: discovery.ResumeIndex, failureMode: fault.First, maxRequest: stream.MaxLine,
		flags: []string{"delay"},
		open: func(cli.Common) (opened, error) {
			return opened{handler: stream.Echo(o.name, o.delay), release: func() {}}, nil
		},
	}
}

// command returns the engine that runs a command for each request.
func (o *options) command(cmd *cobra.Command, args []string) (engine, error) {
	items, err := command.ParseItems(o.items)
	if err != nil {
		return engine{}, cli.Invalid(cmd, "items", err)
	}
	resumeBy, err := command.ParseResumeBy(o.resumeBy)
	if err != nil {
		return engine{}, cli.Invalid(cmd, "resume-by", err)
	}
	resume := discovery.ResumeNo
	if resumeBy != command.ResumeNo {
		resume = discovery.Resume(resumeBy)
	}
	return engine{
		name: "command", resume: resume, failureMode: fault.Never,
		maxStreams: runtime.GOMAXPROCS(0), maxRequest: stream.MaxLine,
		flags: []string{"items", "resume-by"},
		open: func(c cli.Common) (opened, error) {
			e, err := command.New(command.Config{Args: args, Items: items, ResumeBy: resumeBy, Logger: c.Logs.For("engine")})
			if err != nil {
				return opened{}, cli.UsageError(err)
			}
			return opened{handler: e.Handle, release: e.Close}, nil
		},
	}, nil
}
