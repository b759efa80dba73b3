// Package request is the request command: it makes requests, one or many, and prints
// what comes of them.
package request

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/request-migration/migrate/cmd/internal/cli"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
)

type options struct {
	attempts     int
	resume       bool
	model        string
	count        int
	concurrency  int
	router       string
	instance     string
	cooldown     time.Duration
	maxCooldown  time.Duration
	timeout      time.Duration
	dialTimeout  time.Duration
	startTimeout time.Duration
	stallTimeout time.Duration
	itemTimeout  time.Duration
	wait         time.Duration
	waitRestore  time.Duration
	output       string
	spawn        []string
}

// minStallTimeout is above the 5 s of silence after which a server pings, with a second
// for the ping to arrive.
const minStallTimeout = 6 * time.Second

// NewCommand returns the request command.
func NewCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "request MESSAGE",
		Short: "Make a request, and carry it on elsewhere when its stream breaks",
		Long: `request sends MESSAGE (- reads it from standard input) to an instance of the
endpoint and prints the items of the answer as they come. When the stream breaks
it carries on at another instance: from the first item on, or with --resume at the
one where it broke. --output raw prints the answer alone, each item once: as it
comes with --resume, and else when it is whole.

--model M asks the engines that migrate serve --openai has registered for the
model M. MESSAGE is the user's message.

Exit codes: 0 success, 1 other failure, 2 wrong usage, 3 no instances found,
4 attempts used up, 130 interrupted.`,
		Example: `  migrate request hello --spawn server1=always --spawn server2=never --instance server1
  migrate request hello --spawn a=always --spawn b=never --instance a --resume --output raw
  migrate request "Tell me a story" --model llama --output raw
  printf hello | migrate request - --spawn a=never --output json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("got %d arguments, want one MESSAGE (quote it if it has spaces, - reads standard input)", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return run(cmd, o, args[0]) },
	}
	flags := cmd.Flags()
	flags.IntVar(&o.attempts, "attempts", router.DefaultAttempts, "streams that a request may open")
	flags.BoolVar(&o.resume, "resume", false, "carry on at the item where the stream broke, not at the first")
	flags.StringVar(&o.model, "model", "", "ask engines of this model, in the namespace of --endpoint; turns --resume on")
	flags.IntVar(&o.count, "count", 1, "make the request this many times")
	flags.IntVar(&o.concurrency, "concurrency", 1, "requests that run at the same time")
	flags.StringVar(&o.router, "router", cli.PickRandom, "how an instance is chosen: "+strings.Join(cli.PickerNames(), ", "))
	flags.StringVar(&o.instance, "instance", "", "name or id (hex) of the instance for the first attempt")
	flags.DurationVar(&o.cooldown, "cooldown", router.DefaultCooldown, "how long a failing instance stays out")
	flags.DurationVar(&o.maxCooldown, "max-cooldown", 0, "if above --cooldown: double it with each failure in a row, up to this")
	flags.DurationVar(&o.timeout, "timeout", 0, "bound on the whole request (0: none)")
	flags.DurationVar(&o.dialTimeout, "dial-timeout", stream.DefaultDialTimeout, "bound on connecting")
	flags.DurationVar(&o.startTimeout, "start-timeout", stream.DefaultStartTimeout, "bound on the server taking the request")
	flags.DurationVar(&o.stallTimeout, "stall-timeout", stream.DefaultStallTimeout, fmt.Sprintf("bound on a connection's silence, %v at least", minStallTimeout))
	flags.DurationVar(&o.itemTimeout, "item-timeout", 0, "bound on the time between items (0: none)")
	flags.DurationVar(&o.wait, "wait", 10*time.Second, "how long to wait for an instance to appear")
	flags.DurationVar(&o.waitRestore, "wait-restore", 0, "how long to wait for an instance to return when all are down")
	flags.StringVar(&o.output, "output", "", "what to print: "+strings.Join(outputNames(), ", ")+" (default text, summary if --concurrency is above 1); without --resume raw holds the answer back until it is whole")
	flags.StringArrayVar(&o.spawn, "spawn", nil, "run a server in this process, as NAME=FAILURE-MODE; repeatable")
	cli.Complete(cmd, "router", cli.PickerNames()...)
	cli.Complete(cmd, "output", outputNames()...)
	if err := cmd.RegisterFlagCompletionFunc("spawn", completeSpawn); err != nil {
		panic(err) // a flag's name is misspelled in this program
	}
	return cmd
}

// check checks the ranges of the options.
func (o *options) check() error {
	for name, n := range map[string]int64{
		"attempts": int64(o.attempts), "count": int64(o.count), "concurrency": int64(o.concurrency), "cooldown": int64(o.cooldown),
		"dial-timeout": int64(o.dialTimeout), "start-timeout": int64(o.startTimeout), "stall-timeout": int64(o.stallTimeout),
	} {
		if n <= 0 {
			return cli.UsageError(fmt.Errorf("--%s must be above 0", name))
		}
	}
	if o.stallTimeout < minStallTimeout {
		return cli.UsageError(fmt.Errorf("--stall-timeout must be %v or more: a sound server that has nothing to send says every 5s that it lives; --item-timeout bounds the time between items", minStallTimeout))
	}
	return cli.NotNegative(map[string]int64{
		"max-cooldown": int64(o.maxCooldown), "timeout": int64(o.timeout), "item-timeout": int64(o.itemTimeout),
		"wait": int64(o.wait), "wait-restore": int64(o.waitRestore),
	})
}

// message returns the request's text: arg, or the standard input if arg is "-".
func message(cmd *cobra.Command, arg string) (string, error) {
	if arg == "-" {
		// More bytes than a line can have are refused below.
		data, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), stream.MaxLine+1))
		if err != nil {
			return "", fmt.Errorf("reading standard input: %w", err)
		}
		arg = string(data)
	}
	tooLong := cli.UsageError(fmt.Errorf("the message is too long: a request's line has at most %d bytes", stream.MaxLine))
	if len(arg) > stream.MaxLine {
		return "", tooLong // before the check for UTF-8: the cut may be inside a character
	}
	if !utf8.ValidString(arg) {
		return "", cli.UsageError(errors.New("the message is not UTF-8 text, which is all that a request can carry"))
	}
	if n := len(stream.String(arg)); n > stream.MaxLine-1024 {
		return "", tooLong
	}
	return arg, nil
}

// prepare checks the options, the common flags and the message.
func (o *options) prepare(cmd *cobra.Command, arg string) (job, error) {
	if o.model != "" && !cmd.Flags().Changed("resume") {
		o.resume = true
	}
	j := job{options: *o}
	if err := o.check(); err != nil {
		return job{}, err
	}
	var err error
	if j.picker, err = cli.ParsePicker(o.router, cli.PickerNames()); err != nil {
		return job{}, cli.Invalid(cmd, "router", err)
	}
	if j.Common, err = cli.ReadCommon(cmd, "warn"); err != nil {
		return job{}, err
	}
	if err := j.chooseModel(); err != nil {
		return job{}, err
	}
	if j.output == "" {
		j.output = "text"
		if o.concurrency > 1 {
			j.output = outputSummary
		}
	}
	if j.output != outputSummary {
		if j.out, err = newOutput(j.output, cli.Answers(cmd), o.resume); err != nil {
			return job{}, cli.Invalid(cmd, "output", err)
		}
	}
	if o.concurrency > 1 && (j.output == "text" || j.output == "raw") {
		return job{}, cli.UsageError(fmt.Errorf("--output %s shows one request after the other: with --concurrency above 1 use summary or json", j.output))
	}
	if j.backends, err = parseSpawn(o.spawn); err != nil {
		return job{}, cli.UsageError(err)
	}
	if len(j.backends) > 0 && !j.StoreSet {
		j.Store = "mem" // unaffected by whatever else runs on this machine
	}
	if j.Store == "mem" && len(j.backends) == 0 {
		return job{}, cli.UsageError(errors.New("--store-kv mem sees this process alone, and no server runs in it: add --spawn NAME=MODE, or choose --store-kv file"))
	}
	j.text, err = message(cmd, arg)
	return j, err
}

// chooseModel makes the endpoint that of the model, if one is named.
func (j *job) chooseModel() error {
	if j.model == "" {
		return nil
	}
	if len(j.spawn) > 0 {
		return cli.UsageError(errors.New("--spawn runs servers that echo, and --model asks engines: choose one of them"))
	}
	if !utf8.ValidString(j.model) {
		return cli.UsageError(fmt.Errorf("--model %q is not UTF-8 text", j.model))
	}
	j.Endpoint = cli.ModelEndpoint(j.Endpoint.Namespace, j.model)
	return nil
}

func run(cmd *cobra.Command, o options, arg string) (err error) {
	j, err := o.prepare(cmd, arg)
	if err != nil {
		return err
	}
	ctx, stop := cli.UntilEnded(cmd, &err)
	defer stop()
	store, err := j.OpenStore(ctx)
	if err != nil {
		return err
	}
	var undone error
	defer func() { j.LeaveStore("request", store, undone) }()
	stopBackends, err := spawn(ctx, j.Common, store, j.backends)
	defer func() {
		var stopErr error
		undone, stopErr = stopBackends()
		err = errors.Join(err, stopErr)
	}()
	if err != nil {
		return err
	}
	r, stopRouter := j.newRouter(store)
	defer stopRouter()

	if j.concurrency > 1 || j.output == outputSummary {
		err = j.runMany(ctx, cmd, r)
	} else {
		err = j.runEach(ctx, r)
	}
	return err
}
