package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/request-migration/migrate/pkg/discovery/internal/remote"
)

// Defaults of a [Config].
const (
	DefaultEndpoint    = "http://localhost:2379"
	DefaultLeaseTTL    = 10 * time.Second
	DefaultDialTimeout = 5 * time.Second
)

// A Config says where etcd is and how to connect to it. The zero Config means etcd on
// this machine, without authentication.
type Config struct {
	// Endpoints are the URLs of the cluster's members, all http or all https. One
	// without a scheme is https if certificates are given, and http otherwise. The
	// default is [DefaultEndpoint].
	Endpoints []string

	// Username and Password authenticate this client, both or neither.
	Username, Password string

	// CAFile has the certificates, in PEM, of the authorities that must have signed
	// the servers' certificates; the default is the system's. CertFile and KeyFile
	// are this client's certificate and its key, both or neither. All need https
	// endpoints. They are read again for each connection, so that they can be
	// replaced while the store is in use.
	CAFile, CertFile, KeyFile string

	// LeaseTTL is how long kept records outlive this process if it dies. It is
	// rounded up to whole seconds, and to about one and a half of etcd's election
	// timeouts, the shortest lease that etcd grants. The default is
	// [DefaultLeaseTTL].
	LeaseTTL time.Duration

	// DialTimeout bounds [Open]. The default is [DefaultDialTimeout].
	DialTimeout time.Duration

	// Logger gets one warning for each cause of an outage in which records can't be
	// kept, and one for each record that another owner replaces. Details are at
	// debug level. The default discards.
	Logger *slog.Logger
}

// withDefaults returns cfg with its zero values replaced, or an error if a value
// can't be used.
func (cfg Config) withDefaults() (Config, error) {
	endpoints := make([]string, 0, len(cfg.Endpoints))
	for _, e := range cfg.Endpoints {
		e = strings.TrimRight(strings.TrimSpace(e), "/")
		switch {
		case e == "":
			continue
		case strings.Contains(e, "://"):
		case cfg.CAFile+cfg.CertFile != "":
			e = "https://" + e
		default:
			e = "http://" + e
		}
		endpoints = append(endpoints, e)
	}
	if len(endpoints) == 0 {
		endpoints = []string{DefaultEndpoint}
	}
	cfg.Endpoints = endpoints
	if cfg.LeaseTTL == 0 {
		cfg.LeaseTTL = DefaultLeaseTTL
	}
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = DefaultDialTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg, cfg.check()
}

func (cfg Config) check() error {
	scheme, err := checkEndpoints(cfg.Endpoints)
	switch {
	case err != nil:
		return err
	case cfg.LeaseTTL < 0:
		return fmt.Errorf("negative lease time %v", cfg.LeaseTTL)
	case cfg.DialTimeout < 0:
		return fmt.Errorf("negative dial timeout %v", cfg.DialTimeout)
	case (cfg.Username == "") != (cfg.Password == ""):
		return errors.New("a user name and a password are needed, or neither")
	case (cfg.CertFile == "") != (cfg.KeyFile == ""):
		return errors.New("a client certificate and its key are needed, or neither")
	case scheme == "http" && cfg.CAFile+cfg.CertFile != "":
		// etcd's client would ignore the certificates and send everything in the
		// clear.
		return errors.New("certificates are given, but the endpoints are http, not https")
	}
	return nil
}

// checkEndpoints returns the scheme that all endpoints have.
func checkEndpoints(endpoints []string) (scheme string, err error) {
	for _, e := range endpoints {
		u, err := url.Parse(e)
		switch {
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Path != "":
			return "", fmt.Errorf("endpoint %q is not like %s", e, DefaultEndpoint)
		case u.Port() == "":
			return "", fmt.Errorf("endpoint %q has no port", e)
		case scheme != "" && u.Scheme != scheme:
			// etcd's client would use the first endpoint's scheme for all.
			return "", errors.New("some endpoints are http and others https")
		}
		scheme = u.Scheme
	}
	return scheme, nil
}

const (
	// pingAfter and pingTimeout detect a peer that vanished without closing the
	// connection. gRPC allows 10 s at least; etcd tolerates a ping every 5 s.
	pingAfter   = 10 * time.Second
	pingTimeout = 3 * time.Second

	// connectTimeout bounds one try to connect, and maxReconnectDelay the pause
	// after it, so that etcd's return is noticed within 5 s. gRPC's defaults are
	// 20 s and 2 minutes.
	connectTimeout    = 3 * time.Second
	maxReconnectDelay = time.Second
)

// Open connects to etcd and makes one request. It fails if no endpoint can be
// reached, if the endpoints belong to different clusters, or if etcd refuses this
// client; the error names the endpoints and the cause. It returns as soon as the
// outcome is known, and after cfg.DialTimeout at the latest. Until then it repeats a
// request that etcd refuses for a passing reason. ctx bounds Open alone, not the
// store's life.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("configuring etcd: %w", err)
	}
	s, err := open(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connecting to etcd at %s: %w", strings.Join(cfg.Endpoints, ", "), err)
	}
	return s, nil
}

func open(ctx context.Context, cfg Config) (*Store, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.DialTimeout, remote.NoAnswer(cfg.DialTimeout))
	defer cancel()
	var pause remote.Backoff
	for {
		s, err := connect(ctx, cfg)
		if err == nil {
			return s, nil
		}
		if !refusedInPassing(err) || !pause.Wait(ctx, 0) {
			return nil, err
		}
	}
}

// connect makes a client and one request.
func connect(ctx context.Context, cfg Config) (*Store, error) {
	tlsConfig, err := cfg.tls()
	if err != nil {
		return nil, err
	}
	secrecy := insecure.NewCredentials()
	if tlsConfig != nil {
		secrecy = rotating{credentials.NewTLS(tlsConfig), cfg}
	}
	// The client authenticates while it is made, under its own context, which has
	// to last until Close.
	clientCtx, clientCancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, clientCancel)

	client, err := clientv3.New(clientv3.Config{
		Endpoints:            cfg.Endpoints,
		Username:             cfg.Username,
		Password:             cfg.Password,
		Context:              clientCtx,
		DialTimeout:          cfg.DialTimeout,
		DialKeepAliveTime:    pingAfter,
		DialKeepAliveTimeout: pingTimeout,
		// The second try is for an authentication token that has expired.
		MaxUnaryRetries: 2,
		Logger:          zap.NewNop(),
		DialOptions: []grpc.DialOption{
			grpc.WithTransportCredentials(secrecy),
			grpc.WithChainUnaryInterceptor(failFast),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff: grpcbackoff.Config{
					BaseDelay:  100 * time.Millisecond,
					Multiplier: 1.6,
					Jitter:     0.2,
					MaxDelay:   maxReconnectDelay,
				},
				MinConnectTimeout: connectTimeout,
			}),
		},
	})
	if err == nil {
		err = greet(ctx, client, cfg)
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		err = hint(cfg, diagnose(ctx, cfg, explain(ctx, err)))
		clientCancel()
		if client != nil {
			_ = client.Close() // the first error is the cause
		}
		return nil, err
	}
	return newStore(cfg, client, clientCancel), nil
}

// greet makes a request that every client may make and every member can answer, even
// without a quorum, and checks that all members belong to one cluster.
func greet(ctx context.Context, client *clientv3.Client, cfg Config) error {
	differ := make(chan error, 1)
	go func() {
		// A silent member must not delay Open by much.
		ctx, cancel := context.WithTimeout(ctx, cfg.DialTimeout/5)
		defer cancel()
		differ <- oneCluster(ctx, client, cfg.Endpoints)
	}()
	_, err := client.Get(ctx, "v1/", clientv3.WithKeysOnly(), clientv3.WithSerializable())
	if errors.Is(err, rpctypes.ErrPermissionDenied) {
		// etcd knows the client. Its first watch finds out what it may read.
		err = nil
	}
	if different := <-differ; different != nil {
		return different
	}
	return err
}

// oneCluster returns an error if the endpoints that answer belong to different
// clusters, none of which would have all records.
func oneCluster(ctx context.Context, client *clientv3.Client, endpoints []string) error {
	if len(endpoints) < 2 {
		return nil
	}
	clusters := make([]uint64, len(endpoints)) // 0 for no answer
	var asking sync.WaitGroup
	for i, endpoint := range endpoints {
		asking.Go(func() {
			if status, err := client.Status(ctx, endpoint); err == nil {
				clusters[i] = status.Header.ClusterId
			}
		})
	}
	asking.Wait()
	first := -1
	for i, cluster := range clusters {
		switch {
		case cluster == 0:
		case first < 0:
			first = i
		case cluster != clusters[first]:
			return fmt.Errorf("%s and %s belong to different clusters (%x and %x)",
				endpoints[first], endpoints[i], clusters[first], cluster)
		}
	}
	return nil
}

// failFast makes a request fail with the cause when no endpoint can be reached.
// etcd's client has gRPC wait instead, which turns a refused certificate into a
// timeout without a cause.
func failFast(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return invoke(ctx, method, req, reply, cc, append(opts, grpc.WaitForReady(false))...)
}
