package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/request-migration/migrate/pkg/discovery/internal/remote"
)

// Defaults of a [Config].
const (
	DefaultLeaseTTL    = 10 * time.Second
	DefaultDialTimeout = 5 * time.Second
)

// A Config says where the cluster is and who this process is in it. The zero Config is
// right in a Pod, except that its records don't belong to the Pod.
type Config struct {
	// Kubeconfig is a file that says how to reach the API server, in place of what
	// kubectl would use: $KUBECONFIG or ~/.kube/config. Without any of these it is
	// the service account of the Pod that this process runs in.
	Kubeconfig string

	// Namespace is where the records are. The default is that of the kubeconfig's
	// context, or the Pod's.
	Namespace string

	// PodName and PodUID name the Pod that owns the kept records, in Namespace, so
	// that Kubernetes deletes them with it. Both or neither. Kubernetes deletes the
	// records of a Pod that does not exist.
	PodName, PodUID string

	// LeaseTTL is how long kept records outlive this process if it dies. It is
	// rounded up to whole seconds. The default is [DefaultLeaseTTL].
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
	if cfg.LeaseTTL == 0 {
		cfg.LeaseTTL = DefaultLeaseTTL
	}
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = DefaultDialTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case cfg.LeaseTTL < 0:
		return cfg, fmt.Errorf("negative lease time %v", cfg.LeaseTTL)
	case cfg.DialTimeout < 0:
		return cfg, fmt.Errorf("negative dial timeout %v", cfg.DialTimeout)
	case (cfg.PodName == "") != (cfg.PodUID == ""):
		return cfg, errors.New("the Pod's name and its UID are needed, or neither")
	}
	// The API counts in whole seconds, up to an int32.
	cfg.LeaseTTL = min((cfg.LeaseTTL + time.Second - 1).Truncate(time.Second), 24*time.Hour)
	return cfg, nil
}

// Open finds out how to reach the cluster and makes one request. It fails if the API
// server can't be reached or does not know this client; the error names the address and
// the cause. It returns as soon as the outcome is known, and after cfg.DialTimeout at the
// latest. Until then it repeats a request that fails for a passing reason, if the server
// answers at all. ctx bounds Open alone, not the store's life.
//
// Missing permissions are the error of the call that needs them.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("configuring Kubernetes: %w", err)
	}
	access, err := newAccess(cfg)
	if err != nil {
		return nil, fmt.Errorf("configuring Kubernetes: %w", err)
	}
	s := newStore(cfg, access)
	if err := s.greet(ctx); err != nil {
		access.close()
		return nil, fmt.Errorf("connecting to Kubernetes at %s: %w", access.server(), err)
	}
	return s, nil
}

// greet makes a request that costs the API server next to nothing.
func (s *Store) greet(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.DialTimeout, remote.NoAnswer(s.cfg.DialTimeout))
	defer cancel()
	var pause remote.Backoff
	for {
		err := s.explain(ctx, "list", s.access.check(ctx))
		// Without permission the server knows this client all the same.
		if err == nil || apierrors.IsForbidden(err) {
			return nil
		}
		if _, answered := errors.AsType[*apierrors.StatusError](err); !answered || !transient(err) || !pause.Wait(ctx, askedBy(err)) {
			return err
		}
	}
}

// Namespace returns the namespace of the records.
func (s *Store) Namespace() string { return s.namespace }

// check asks for a list that is empty, from the API server's memory: a sign of life.
func (a *access) check(ctx context.Context) error {
	_, err := a.list(ctx, metav1.ListOptions{LabelSelector: underLabel + "0=none", ResourceVersion: "0", Limit: 1})
	return err
}
