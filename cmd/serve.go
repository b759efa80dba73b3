package cmd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/fault"
)

type serveOptions struct {
	name         string
	failureMode  string
	failureAfter int
	failureKind  string
	listen       string
	advertise    string
	delay        time.Duration
	maxStreams   int
	maxRequest   int
	drainTimeout time.Duration
	metrics      string // address
}

// farewell is how long a server that leaves goes on refusing requests: longer
// than the news of it takes through a store to the clients' lists.
const farewell = 500 * time.Millisecond

// minMaxRequest leaves room for what goes with every request, headers among it.
const minMaxRequest = 16 << 10

// defaultFailureAfter is the original's: a fault shows after two characters.
const defaultFailureAfter = 2

func newServe() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the endpoint: echo each request character by character",
		Long: `serve answers requests with one item for each character of the message, and
registers itself so that clients find it. It can be made to fail on purpose.

SIGTERM, SIGINT, or SIGHUP unless nohup has it ignored, drains it: it deregisters,
refuses new requests, lets running streams finish for --drain-timeout, hands the
rest back to their clients, and exits with 0. A second signal ends it at once: any
other, or the same a second or more after the first.`,
		Example: `  SERVER_NAME=server1 FAILURE_MODE=always migrate serve
  migrate serve --name server2 --failure-mode never --delay 100ms
  migrate serve --name server3 --failure-mode 2-4 --failure-kind close`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runServe(cmd, o) },
	}
	modes := strings.Join(fault.ModeNames(), ", ")
	kinds := make([]string, 0, len(fault.Kinds()))
	for _, k := range fault.Kinds() {
		kinds = append(kinds, string(k))
	}
	flags := cmd.Flags()
	flags.StringVar(&o.name, "name", "server", "name of this server")
	flags.StringVar(&o.failureMode, "failure-mode", "first", "which requests fail: "+modes+", or by number, as 3 or 2-4")
	flags.IntVar(&o.failureAfter, "failure-after", defaultFailureAfter, "items a failing request sends first; with no more than that it does not fail")
	flags.StringVar(&o.failureKind, "failure-kind", string(fault.Error), "how requests fail: "+strings.Join(kinds, ", "))
	flags.StringVar(&o.listen, "listen", "127.0.0.1:0", "HOST:PORT to listen on; port 0 is any free one")
	flags.StringVar(&o.advertise, "advertise", "", "HOST:PORT that clients are told (default the bound one)")
	flags.DurationVar(&o.delay, "delay", 0, "pause between items")
	flags.IntVar(&o.maxStreams, "max-streams", 0, "requests that may run at once; more are refused as overloaded (0: no limit)")
	flags.IntVar(&o.maxRequest, "max-request", stream.MaxLine, fmt.Sprintf("bytes of the longest request that is taken, %d at least", minMaxRequest))
	flags.DurationVar(&o.drainTimeout, "drain-timeout", 10*time.Second, "how long running streams may go on once the server is asked to end")
	flags.StringVar(&o.metrics, "metrics-listen", "", "HOST:PORT to serve Prometheus metrics on, at /metrics; without HOST the loopback address (default off)")
	complete(cmd, "failure-mode", fault.ModeNames()...)
	complete(cmd, "failure-kind", kinds...)
	return cmd
}

// config checks the options.
func (o *serveOptions) config(cmd *cobra.Command) (backendConfig, error) {
	mode, err := fault.ParseMode(o.failureMode)
	if err != nil {
		return backendConfig{}, invalid(cmd, "failure-mode", err)
	}
	kind, err := fault.ParseKind(o.failureKind)
	if err != nil {
		return backendConfig{}, invalid(cmd, "failure-kind", err)
	}
	if !utf8.ValidString(o.name) {
		return backendConfig{}, invalid(cmd, "name", fmt.Errorf("%q is not UTF-8 text", o.name))
	}
	host, _, err := splitAddress(o.listen, 0)
	if err != nil {
		return backendConfig{}, invalid(cmd, "listen", err)
	}
	if o.advertise != "" {
		if err := checkAdvertised(o.advertise); err != nil {
			return backendConfig{}, invalid(cmd, "advertise", err)
		}
	} else if everyAddress(host) {
		return backendConfig{}, invalid(cmd, "listen", fmt.Errorf("%q is every address, and none that clients can be told: say with --advertise HOST:PORT which one they should use", o.listen))
	}
	if o.metrics != "" {
		if o.metrics, err = metricsAddress(o.metrics); err != nil {
			return backendConfig{}, invalid(cmd, "metrics-listen", err)
		}
	}
	if err := notNegative(map[string]int64{
		"failure-after": int64(o.failureAfter), "delay": int64(o.delay),
		"max-streams": int64(o.maxStreams), "drain-timeout": int64(o.drainTimeout),
	}); err != nil {
		return backendConfig{}, err
	}
	if o.maxRequest < minMaxRequest {
		return backendConfig{}, invalid(cmd, "max-request", fmt.Errorf("it is %d, and must be %d bytes at least", o.maxRequest, minMaxRequest))
	}
	maxRequest := o.maxRequest
	if maxRequest == stream.MaxLine {
		maxRequest = 0 // which records need not say
	}
	return backendConfig{
		name: o.name, listen: o.listen, advertise: o.advertise, maxStreams: o.maxStreams, maxRequest: maxRequest, farewell: farewell,
		handler: stream.Echo(o.name, o.delay),
		fault:   fault.Fault{Mode: mode, Kind: kind, After: o.failureAfter},
	}, nil
}

func runServe(cmd *cobra.Command, o serveOptions) error {
	outliveReaders()
	cfg, err := o.config(cmd)
	if err != nil {
		return err
	}
	c, err := readCommon(cmd, "info")
	if err != nil {
		return err
	}
	if c.store == "mem" {
		return usageError{errors.New("--store-kv mem is seen by this process alone, so no request could find the server: use file, or migrate request --spawn")}
	}
	ctx, insisted, stop := drainable(cmd.Context())
	defer stop()
	log := c.logs.For("serve")
	b, leave, err := startServer(ctx, c, o, cfg)
	if ctx.Err() != nil && err != nil {
		return nil // it was asked to end before it began
	}
	if err != nil {
		return err
	}
	<-ctx.Done()
	log.Info(fmt.Sprintf("Draining: deregistering, then %v for running streams", o.drainTimeout), "signal", context.Cause(ctx), "streams", b.server.Streams())
	ctx, cancel := context.WithTimeout(cmd.Context(), o.drainTimeout)
	stopped := make(chan error, 1)
	go func() {
		defer cancel() // not when this function returns: that would hand streams back after a second signal
		handedBack, undone, err := b.stop(ctx)
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
		return fmt.Errorf("%w: a second signal cut off %d streams", errInterrupted, b.server.Streams())
	}
}

// startServer opens the store and starts the server. leave closes what the server
// leaves open when it stops; undone is what it could not undo in the store.
func startServer(ctx context.Context, c common, o serveOptions, cfg backendConfig) (b *backend, leave func(undone error) error, err error) {
	store, err := c.openStore(ctx)
	if err != nil {
		return nil, nil, err
	}
	m, err := startMetrics(ctx, c, o.metrics, o.name)
	leave = func(undone error) error {
		err := m.stop()
		c.leaveStore("serve", store, undone)
		return err
	}
	if err == nil {
		if m != nil {
			cfg.metrics = m.backend
		}
		b, err = startBackend(ctx, c, store, cfg)
	}
	if err != nil {
		return nil, nil, errors.Join(err, leave(nil))
	}
	return b, leave, nil
}

// notNegative checks flags that count or last.
func notNegative(flags map[string]int64) error {
	for name, n := range flags {
		if n < 0 {
			return usageError{fmt.Errorf("--%s is below 0: it must be 0 or more", name)}
		}
	}
	return nil
}
