// Package serve is the serve command: it runs a server of the endpoint until it is
// asked to end.
package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/request-migration/migrate/cmd/internal/backend"
	"github.com/request-migration/migrate/cmd/internal/cli"
	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/fault"
)

type options struct {
	name         string
	failureMode  string
	failureAfter int
	failureKind  string
	listen       string
	advertise    string
	maxStreams   int
	maxRequest   int
	drainTimeout time.Duration
	metrics      string // address
	engineOptions
}

// farewell is how long a server goes on refusing requests after it has deregistered:
// longer than that takes to reach the clients through a store.
const farewell = 500 * time.Millisecond

// minMaxRequest leaves room for the other fields of a request, such as headers.
const minMaxRequest = 16 << 10

// NewCommand returns the serve command.
func NewCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "serve [flags] [-- COMMAND [ARGS...]]",
		Short: "Serve the endpoint: echo each request, or answer it with a command or an LLM engine",
		Long: `serve answers requests, and registers itself so that clients find it. It can be
made to fail on purpose.

Without a COMMAND it answers with one item for each character of the message.

With one it starts COMMAND for each request. The message is COMMAND's standard
input, what COMMAND prints is the answer, and each line of it an item that goes
out at once. Exit code 0 ends the answer; 75, or a signal, breaks it, and the
client carries on elsewhere; any other code is the request's own error, with the
end of standard error. With --resume-by index COMMAND promises to begin at the
item that MIGRATE_FROM names, with prefix to go on behind the items in the file
that MIGRATE_PREFIX names; otherwise a client that carries on compares a new
answer with what it has.

With --openai URL an OpenAI-compatible server (vLLM, SGLang, llama.cpp, Ollama, a
hosted provider) answers. Each of its models is registered as NAMESPACE/MODEL/openai
while the engine is well, and migrate request --model MODEL finds it there. An answer
that another engine began is gone on with where the engine can do that.

SIGTERM, SIGINT, or SIGHUP unless nohup has it ignored, drains a server: it
deregisters, refuses new requests, lets running streams finish for
--drain-timeout, hands the rest back to their clients, and exits with 0. A second
signal ends it at once: any other, or the same a second or more after the first.`,
		Example: `  SERVER_NAME=server1 FAILURE_MODE=always migrate serve
  migrate serve --name server2 --failure-mode never --delay 100ms
  migrate serve --name server3 --failure-mode 2-4 --failure-kind close
  migrate serve --openai http://127.0.0.1:8000
  migrate serve --name upper --endpoint demo/text/upper -- tr a-z A-Z
  migrate serve --name count --endpoint demo/text/count --resume-by index -- sh -c 'seq $((MIGRATE_FROM + 1)) 1000'`,
		Args: checkArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return run(cmd, o, args) },
	}
	modes := strings.Join(fault.ModeNames(), ", ")
	kinds := make([]string, 0, len(fault.Kinds()))
	for _, k := range fault.Kinds() {
		kinds = append(kinds, string(k))
	}
	flags := cmd.Flags()
	flags.StringVar(&o.name, "name", "server", "name of this server (default with --openai: HOST:PORT of its URL)")
	flags.StringVar(&o.failureMode, "failure-mode", "", "which requests fail: "+modes+", or by number, as 3 or 2-4 (default first; never for a command and for --openai)")
	flags.IntVar(&o.failureAfter, "failure-after", backend.DefaultFailureAfter, "items a failing request sends first; with no more than that it does not fail")
	flags.StringVar(&o.failureKind, "failure-kind", string(fault.Error), "how requests fail: "+strings.Join(kinds, ", "))
	flags.StringVar(&o.listen, "listen", "127.0.0.1:0", "HOST:PORT to listen on; port 0 is any free one (in a Pod the default is its own address)")
	flags.StringVar(&o.advertise, "advertise", "", "HOST:PORT that clients are told (default the bound one; in a Pod its own)")
	flags.IntVar(&o.maxStreams, "max-streams", 0, "streams that may run at once; more requests are refused as overloaded (0: no limit; default 0, for a command the number of cores)")
	flags.IntVar(&o.maxRequest, "max-request", stream.MaxLine, fmt.Sprintf("bytes of the longest request that is taken, %d at least (default with --openai: %d)", minMaxRequest, maxOpenAIRequest))
	flags.DurationVar(&o.drainTimeout, "drain-timeout", 10*time.Second, "how long running streams may go on once the server is asked to end")
	flags.StringVar(&o.metrics, "metrics-listen", "", "HOST:PORT to serve Prometheus metrics on, at /metrics; without HOST the loopback address (default off)")
	o.addFlags(cmd)
	cli.Complete(cmd, "failure-mode", fault.ModeNames()...)
	cli.Complete(cmd, "failure-kind", kinds...)
	return cmd
}

// inPod fills in where a server in a Pod listens, and what clients are told: the Pod's own
// address.
func (o *options) inPod(cmd *cobra.Command, ip string) error {
	if ip == "" {
		return nil
	}
	if _, err := netip.ParseAddr(ip); err != nil {
		return cli.UsageError(fmt.Errorf("POD_IP: %w", err))
	}
	if !cmd.Flags().Changed("listen") {
		o.listen = net.JoinHostPort(ip, "0")
	}
	host, port, err := cli.SplitAddress(o.listen, 0)
	if err != nil || o.advertise != "" || !cli.EveryAddress(host) {
		return nil //nolint:nilerr // config says what is wrong with the address
	}
	if port == "0" {
		o.listen = net.JoinHostPort(ip, port) // the port is not known before
	} else {
		o.advertise = net.JoinHostPort(ip, port)
	}
	return nil
}

// config checks the options, for a server with this engine.
func (o *options) config(cmd *cobra.Command, e engine) (backend.Config, error) {
	set := cmd.Flags().Changed
	mode := e.failureMode
	if set("failure-mode") {
		var err error
		if mode, err = fault.ParseMode(o.failureMode); err != nil {
			return backend.Config{}, cli.Invalid(cmd, "failure-mode", err)
		}
	}
	if !set("max-streams") {
		o.maxStreams = e.maxStreams
	}
	if !set("max-request") {
		o.maxRequest = e.maxRequest
	}
	kind, err := fault.ParseKind(o.failureKind)
	if err != nil {
		return backend.Config{}, cli.Invalid(cmd, "failure-kind", err)
	}
	if !utf8.ValidString(o.name) {
		return backend.Config{}, cli.Invalid(cmd, "name", fmt.Errorf("%q is not UTF-8 text", o.name))
	}
	host, _, err := cli.SplitAddress(o.listen, 0)
	if err != nil {
		return backend.Config{}, cli.Invalid(cmd, "listen", err)
	}
	if o.advertise != "" {
		if err := cli.CheckAdvertised(o.advertise); err != nil {
			return backend.Config{}, cli.Invalid(cmd, "advertise", err)
		}
	} else if cli.EveryAddress(host) {
		return backend.Config{}, cli.Invalid(cmd, "listen", fmt.Errorf("%q is every address, and none that clients can be told: say with --advertise HOST:PORT which one they should use", o.listen))
	}
	if o.metrics != "" {
		if o.metrics, err = metricsAddress(o.metrics); err != nil {
			return backend.Config{}, cli.Invalid(cmd, "metrics-listen", err)
		}
	}
	if err := cli.NotNegative(map[string]int64{
		"failure-after": int64(o.failureAfter), "delay": int64(o.delay),
		"max-streams": int64(o.maxStreams), "drain-timeout": int64(o.drainTimeout),
	}); err != nil {
		return backend.Config{}, err
	}
	if o.maxRequest < minMaxRequest {
		return backend.Config{}, cli.Invalid(cmd, "max-request", fmt.Errorf("it is %d, and must be %d bytes at least", o.maxRequest, minMaxRequest))
	}
	maxRequest := o.maxRequest
	if maxRequest == stream.MaxLine {
		maxRequest = 0 // the default, which records leave out
	}
	return backend.Config{
		Name: o.name, Listen: o.listen, Advertise: o.advertise, MaxStreams: o.maxStreams, MaxRequest: maxRequest, Farewell: farewell,
		Engine: e.name, Resume: e.resume,
		Fault: fault.Fault{Mode: mode, Kind: kind, After: o.failureAfter},
	}, nil
}

func run(cmd *cobra.Command, o options, args []string) error {
	cli.OutliveReaders()
	e, err := o.engine(cmd, args)
	if err != nil {
		return err
	}
	c, err := cli.ReadCommon(cmd, "info")
	if err != nil {
		return err
	}
	if err := o.inPod(cmd, c.PodIP()); err != nil {
		return err
	}
	cfg, err := o.config(cmd, e)
	if err != nil {
		return err
	}
	if c.Store == "mem" {
		return cli.UsageError(errors.New("--store-kv mem is seen by this process alone, so no request could find the server: use file, or migrate request --spawn"))
	}
	ctx, insisted, stop := cli.Drainable(cmd.Context())
	defer stop()
	log := c.Logs.For("serve")
	b, leave, err := startServer(ctx, c, o, e, cfg)
	if ctx.Err() != nil && err != nil {
		return nil // a signal came before it had started
	}
	if err != nil {
		return err
	}
	<-ctx.Done()
	log.Info(fmt.Sprintf("Draining: deregistering, then %v for running streams", o.drainTimeout), "signal", context.Cause(ctx), "streams", b.Streams())
	ctx, cancel := context.WithTimeout(cmd.Context(), o.drainTimeout)
	stopped := make(chan error, 1)
	go func() {
		defer cancel() // not in run, which returns at a second signal: that would hand streams back
		handedBack, undone, err := b.Stop(ctx)
		if handedBack > 0 {
			log.Info("Handed running streams back", "streams", handedBack)
		}
		stopped <- errors.Join(err, leave(undone))
	}()
	select {
	case err := <-stopped:
		log.Info("Stopped")
		return err
	case <-insisted:
		return fmt.Errorf("%w: a second signal cut off %d streams", cli.ErrInterrupted, b.Streams())
	}
}

// startServer opens the engine and the store, and starts the metrics and the server.
// leave ends the others once the server has stopped; undone is why its record could not
// be deleted.
func startServer(ctx context.Context, c cli.Common, o options, e engine, cfg backend.Config) (b *backend.Backend, leave func(undone error) error, err error) {
	engine, err := e.open(c)
	if err != nil {
		return nil, nil, err
	}
	cfg.Handler, cfg.Listed = engine.handler, engine.listed
	store, err := c.OpenStore(ctx)
	if err != nil {
		engine.release()
		return nil, nil, err
	}
	endpoint := c.Endpoint.String()
	if engine.listed != nil {
		endpoint = cli.ModelEndpoint(c.Endpoint.Namespace, "*").String() // one server for all of them
	}
	m, err := startMetrics(ctx, c, o.metrics, endpoint, o.name)
	leave = func(undone error) error {
		engine.release()
		err := m.stop()
		c.LeaveStore("serve", store, undone)
		return err
	}
	if err == nil {
		if m != nil {
			cfg.Metrics = m.backend
		}
		b, err = backend.Start(ctx, c, store, cfg)
	}
	if err != nil {
		return nil, nil, errors.Join(err, leave(nil))
	}
	return b, leave, nil
}
