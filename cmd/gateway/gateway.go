// Package gateway is the gateway command: an HTTP server for OpenAI clients.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/request-migration/migrate/cmd/internal/cli"
	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/engine/openai"
	"github.com/request-migration/migrate/pkg/gateway"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
)

type options struct {
	listen           string
	engines          []string
	anyModel         bool
	fallbacks        []string
	aliases          []string
	router           string
	firstItemTimeout []string
	itemTimeout      time.Duration
	attempts         int
	cooldown         time.Duration
	waitRestore      time.Duration
	drainTimeout     time.Duration
	maxBody          int64
	apiKeyFile       string
	engineKeyFiles   []string
	accessLog        string
	origins          []string
}

// NewCommand returns the gateway command.
func NewCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "gateway",
		Short: "Serve OpenAI clients, whose answers go on while engines are killed",
		Long: `gateway is an HTTP server for ordinary OpenAI clients. When the engine that writes
an answer breaks, the answer goes on at another one, and the client notices nothing
but a pause.

Without --engine it serves the models that migrate serve --openai has registered in
the namespace of --endpoint. With --engine NAME=URL it asks engines itself, and needs
no discovery; every model that one of them has is served.

GET / is a page that shows what is going on. /metrics has figures for Prometheus,
/readyz says whether requests are to be sent here, and /healthz whether it lives.

SIGTERM or SIGINT makes it unready at once. It takes requests for 5 s more, lets
those that run finish for --drain-timeout, ends the rest with an error in the
stream, and exits with 0.`,
		Example: `  migrate gateway --engine a=http://127.0.0.1:8000 --engine b=http://127.0.0.1:8001
  migrate gateway --listen 127.0.0.1:8091 --fallback '*=small' --access-log -`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd, o) },
	}
	flags := cmd.Flags()
	flags.StringVar(&o.listen, "listen", "127.0.0.1:8090", "HOST:PORT to listen on; port 0 is any free one")
	flags.StringArrayVar(&o.engines, "engine", nil, "NAME=URL of an engine that is asked without discovery; repeatable")
	flags.BoolVar(&o.anyModel, "any-model", false, "with --engine: send models that no engine lists to every engine, as hosted providers take more than they list")
	flags.StringArrayVar(&o.fallbacks, "fallback", nil, "MODEL=MODEL: who answers when nobody is left for a model; * is for all others; repeatable")
	flags.StringArrayVar(&o.aliases, "alias", nil, "NAME=MODEL: another name of a model; repeatable")
	flags.StringVar(&o.router, "router", cli.PickAffinity, "how an engine is chosen: "+strings.Join(cli.SessionPickerNames(), ", "))
	flags.StringArrayVar(&o.firstItemTimeout, "first-item-timeout", nil, fmt.Sprintf("with --engine: bound on the time to the first token, or MODEL=DURATION for one model; repeatable (default %v)", openai.DefaultFirstItemTimeout))
	flags.DurationVar(&o.itemTimeout, "item-timeout", openai.DefaultItemTimeout, "with --engine: bound on the time to each further token")
	flags.IntVar(&o.attempts, "attempts", gateway.DefaultAttempts, "streams that a request may open for each model")
	flags.DurationVar(&o.cooldown, "cooldown", router.DefaultCooldown, "how long a failing engine stays out")
	flags.DurationVar(&o.waitRestore, "wait-restore", gateway.DefaultWaitRestore, "how long an answer that has begun, or a request that is not streamed, waits for an engine when none is left")
	flags.DurationVar(&o.drainTimeout, "drain-timeout", 2*time.Minute, "how long running requests may go on once the gateway is asked to end")
	flags.Int64Var(&o.maxBody, "max-body", gateway.DefaultMaxBody, "bytes that the body of a request may have")
	flags.StringVar(&o.apiKeyFile, "api-key-file", "", "file with the keys that clients must have one of, in lines of NAME KEY")
	flags.StringArrayVar(&o.engineKeyFiles, "engine-key-file", nil, "with --engine: file with the key that the engines want, or ENGINE=FILE for one; repeatable")
	flags.StringVar(&o.accessLog, "access-log", "", "file that gets a line of JSON for each request, - for standard output; it has nothing of what was asked and answered (default off)")
	flags.StringArrayVar(&o.origins, "cors-origin", nil, "origin of pages elsewhere that may ask, such as https://example.com; repeatable")
	cli.Complete(cmd, "router", cli.SessionPickerNames()...)
	return cmd
}

// pairs parses NAME=VALUE flags, cut at the first equals sign.
func pairs(cmd *cobra.Command, flag string, values []string) (map[string]string, error) {
	m := make(map[string]string, len(values))
	for _, v := range values {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" || value == "" {
			return nil, cli.Invalid(cmd, flag, fmt.Errorf("%q: want NAME=VALUE", v))
		}
		if _, twice := m[name]; twice {
			return nil, cli.Invalid(cmd, flag, fmt.Errorf("%q is given twice", name))
		}
		m[name] = value
	}
	return m, nil
}

// check checks the ranges of the options, and what is for --engine alone.
func (o *options) check(cmd *cobra.Command) error {
	if o.attempts <= 0 || o.cooldown <= 0 || o.itemTimeout <= 0 || o.maxBody <= 0 {
		return cli.UsageError(errors.New("--attempts, --cooldown, --item-timeout and --max-body must be above 0"))
	}
	if err := cli.NotNegative(map[string]int64{"wait-restore": int64(o.waitRestore), "drain-timeout": int64(o.drainTimeout)}); err != nil {
		return err
	}
	if len(o.engines) > 0 {
		return nil
	}
	for _, flag := range []string{"any-model", "first-item-timeout", "item-timeout", "engine-key-file"} {
		if cmd.Flags().Changed(flag) {
			return cli.Invalid(cmd, flag, errors.New("it is for --engine; behind migrate serve its own flags count"))
		}
	}
	return nil
}

// config checks the options but those of engines.
func (o *options) config(cmd *cobra.Command) (gateway.Config, error) {
	if err := o.check(cmd); err != nil {
		return gateway.Config{}, err
	}
	cfg := gateway.Config{Attempts: o.attempts, Cooldown: o.cooldown, WaitRestore: o.waitRestore, MaxBody: o.maxBody, Origins: o.origins}
	if o.waitRestore == 0 {
		cfg.WaitRestore = -1
	}
	var err error
	if _, err = cli.ParsePicker(o.router, cli.SessionPickerNames()); err != nil {
		return cfg, cli.Invalid(cmd, "router", err)
	}
	cfg.Picker = func() router.Picker {
		p, err := cli.ParsePicker(o.router, cli.SessionPickerNames())
		if err != nil {
			panic(err) // it was parsed above
		}
		return p
	}
	if cfg.Fallbacks, err = pairs(cmd, "fallback", o.fallbacks); err != nil {
		return cfg, err
	}
	if cfg.Aliases, err = pairs(cmd, "alias", o.aliases); err != nil {
		return cfg, err
	}
	if o.apiKeyFile != "" {
		if cfg.Keys, err = readKeys(o.apiKeyFile); err != nil {
			return cfg, cli.Invalid(cmd, "api-key-file", err)
		}
	}
	return cfg, nil
}

// openEngines makes the engines of --engine.
func (o *options) openEngines(cmd *cobra.Command, c cli.Common) (map[string]*openai.Engine, error) {
	urls, err := pairs(cmd, "engine", o.engines)
	if err != nil {
		return nil, err
	}
	all, each, err := cli.FirstItemTimeouts(o.firstItemTimeout)
	if err != nil {
		return nil, cli.Invalid(cmd, "first-item-timeout", err)
	}
	keys := map[string]func() string{}
	for _, v := range o.engineKeyFiles {
		name, file, one := strings.Cut(v, "=")
		if !one {
			name, file = "", v
		} else if urls[name] == "" {
			return nil, cli.Invalid(cmd, "engine-key-file", fmt.Errorf("there is no engine %q, only %s", name, strings.Join(slices.Sorted(maps.Keys(urls)), ", ")))
		}
		if keys[name], err = cli.KeyFile(file); err != nil {
			return nil, cli.Invalid(cmd, "engine-key-file", err)
		}
	}
	engines := make(map[string]*openai.Engine, len(urls))
	for name, url := range urls {
		cfg := openai.Config{URL: url, FirstItemTimeout: all, FirstItemTimeouts: each, ItemTimeout: o.itemTimeout, Key: keys[""], Logger: c.Logs.For("engine")}
		if keys[name] != nil {
			cfg.Key = keys[name]
		}
		if engines[name], err = openai.New(cfg); err != nil {
			return nil, cli.Invalid(cmd, "engine", err)
		}
	}
	return engines, nil
}

func run(cmd *cobra.Command, o options) error {
	cli.OutliveReaders()
	cfg, err := o.config(cmd)
	if err != nil {
		return err
	}
	c, err := cli.ReadCommon(cmd, "info")
	if err != nil {
		return err
	}
	cfg.Namespace, cfg.Logger = c.Endpoint.Namespace, c.Logs.For("gateway")
	engines, err := o.openEngines(cmd, c)
	if err != nil {
		return err
	}
	access, err := openAccessLog(cmd, o.accessLog)
	if err != nil {
		return err
	}
	defer access.close()
	ctx, insisted, stop := cli.Drainable(cmd.Context())
	defer stop()
	leave, err := o.connect(ctx, c, &cfg, engines)
	if err != nil {
		return err
	}
	defer leave()
	m := newMetrics()
	cfg.Done = func(e *gateway.Entry) {
		m.done(e)
		access.write(e)
	}
	g := gateway.New(cfg)
	defer g.Close()
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return fmt.Errorf("listening on %s: %w; choose another address with --listen, or port 0 for any free one", o.listen, err)
	}
	return o.serve(ctx, insisted, l, g, m, c)
}

// connect gives the gateway its instances: the engines, or those that discovery lists.
func (o *options) connect(ctx context.Context, c cli.Common, cfg *gateway.Config, engines map[string]*openai.Engine) (leave func(), err error) {
	if len(engines) > 0 {
		all := gateway.NewEngines(cfg.Namespace, engines, cfg.Logger)
		cfg.Engines, cfg.AnyModel = all, o.anyModel
		return func() {
			all.Close()
			for _, e := range engines {
				e.Close()
			}
		}, nil
	}
	if c.Store == "mem" {
		return nil, cli.UsageError(errors.New("--store-kv mem sees this process alone, in which nobody registers a model: use file, etcd or kubernetes, or --engine NAME=URL"))
	}
	store, err := c.OpenStore(ctx)
	if err != nil {
		return nil, err
	}
	client := &stream.Client{Logger: c.Logs.For("stream")}
	cfg.Registry, cfg.Client = discovery.NewRegistry(store, c.Logs.For("discovery")), router.StreamClient(client)
	return func() {
		client.Close()
		c.LeaveStore("gateway", store, nil)
	}, nil
}

// The bounds of an HTTP connection.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute // more than clients keep connections
	bodyTimeout   = 2 * time.Minute // for 24 MiB, 200 kB/s
	maxHeader     = 64 << 10
)

// serve serves until ctx ends, and then lets the gateway leave.
func (o *options) serve(ctx context.Context, insisted <-chan os.Signal, l net.Listener, g *gateway.Gateway, m *metrics, c cli.Common) error {
	log := c.Logs.For("gateway")
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.handler())
	mux.Handle("/", withDeadline(g))
	srv := &http.Server{
		Handler: mux, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), // what is wrong with single connections
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	log.Info("Serving OpenAI clients", "url", "http://"+l.Addr().String()+"/v1", "page", "http://"+l.Addr().String()+"/")
	select {
	case err := <-served:
		return fmt.Errorf("serving %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	g.Leave()
	log.Info(fmt.Sprintf("Draining: requests are taken for 5s more, and those that run have %v", o.drainTimeout), "signal", context.Cause(ctx))
	stopped := make(chan error, 1)
	go func() { stopped <- o.stop(srv, g) }()
	select {
	case err := <-stopped:
		if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
			err = errors.Join(err, ended)
		}
		log.Info("Stopped")
		return err
	case <-insisted:
		_ = srv.Close() // nobody is waited for any more
		return fmt.Errorf("%w: a second signal cut off the running requests", cli.ErrInterrupted)
	}
}

// stop waits for those who have not heard yet, then for what runs, and ends the rest.
func (o *options) stop(srv *http.Server, g *gateway.Gateway) error {
	time.Sleep(min(o.drainTimeout, gateway.StillTaken))
	ctx, cancel := context.WithTimeout(context.Background(), o.drainTimeout)
	defer cancel()
	err := srv.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		g.Close() // what runs gets its error
		last, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err = srv.Shutdown(last); errors.Is(err, context.DeadlineExceeded) {
			err = srv.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("ending the HTTP server: %w", err)
	}
	return nil
}

// withDeadline bounds the time in which a request's body comes.
func withDeadline(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)) // a real connection has one
		next.ServeHTTP(w, r)
	})
}
