package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
)

const (
	// pingAfter and pingTimeout find a connection whose other end is gone
	// without a word. 10 s is the least that gRPC allows, and above the 5 s
	// that etcd tolerates.
	pingAfter   = 10 * time.Second
	pingTimeout = 3 * time.Second

	// connectTimeout bounds one try to connect, and maxReconnectDelay the pause
	// after it, so that etcd's return is noticed within 5 s. gRPC's own figures
	// are 20 s and 2 minutes.
	connectTimeout    = 3 * time.Second
	maxReconnectDelay = time.Second
)

// Open connects to etcd and makes one request, so that an etcd that can't be
// used is found here: if none of the endpoints can be reached, or this client
// is refused, the error names the endpoints and the cause. Both are returned as
// soon as they are known, and at the latest after cfg.DialTimeout. ctx bounds
// Open alone, not the store's life.
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
	tlsConfig, err := cfg.tls()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.DialTimeout, noAnswer(cfg.DialTimeout))
	defer cancel()

	// The client lives until Close, but authenticates when it is made, under
	// its own context.
	clientCtx, clientCancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, clientCancel)

	client, err := clientv3.New(clientv3.Config{
		Endpoints:            cfg.Endpoints,
		Username:             cfg.Username,
		Password:             cfg.Password,
		TLS:                  tlsConfig,
		Context:              clientCtx,
		DialTimeout:          cfg.DialTimeout,
		DialKeepAliveTime:    pingAfter,
		DialKeepAliveTimeout: pingTimeout,
		// The second try is there for an authentication token that has run out.
		MaxUnaryRetries: 2,
		Logger:          zap.NewNop(),
		DialOptions: []grpc.DialOption{
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
		err = greet(ctx, client)
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		err = diagnose(ctx, cfg, tlsConfig, explain(ctx, err))
		clientCancel()
		if client != nil {
			_ = client.Close() // the first error is the cause
		}
		return nil, err
	}
	return newStore(cfg, client, clientCancel), nil
}

// greet makes a request that any client may make.
func greet(ctx context.Context, client *clientv3.Client) error {
	_, err := client.Get(ctx, "v1/", clientv3.WithKeysOnly())
	if errors.Is(err, rpctypes.ErrPermissionDenied) {
		// The client has been recognised. What it may read is for its first
		// watch to find out.
		return nil
	}
	return err
}

// failFast makes a request fail with the cause when no endpoint can be
// connected to. etcd's client asks gRPC to wait instead, which turns a refused
// certificate into a timeout that says nothing.
func failFast(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return invoke(ctx, method, req, reply, cc, append(opts, grpc.WaitForReady(false))...)
}
