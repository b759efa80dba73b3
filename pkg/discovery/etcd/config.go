package etcd

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"
)

// Defaults of a [Config].
const (
	DefaultEndpoint    = "http://localhost:2379"
	DefaultLeaseTTL    = 10 * time.Second
	DefaultDialTimeout = 5 * time.Second
)

// Config says where etcd is and how to speak with it. The zero Config is an
// etcd on this machine, without authentication.
type Config struct {
	// Endpoints are the URLs of the cluster's members, http or https and all
	// the same of these; one without a scheme is https if certificates are
	// given and http if not. Default [DefaultEndpoint].
	Endpoints []string

	// Username and Password authenticate this client, both or neither.
	Username, Password string

	// CAFile holds the certificates that the servers' must be signed by, in
	// PEM; default the system's. CertFile and KeyFile are this client's own
	// certificate and its key, both or neither. They need https endpoints. They
	// are read again for each connection, and may be replaced meanwhile.
	CAFile, CertFile, KeyFile string

	// LeaseTTL is how long kept records outlive this process if it dies.
	// etcd counts in whole seconds (rounded up here) and takes nothing below
	// about one and a half of its election timeouts; default [DefaultLeaseTTL].
	LeaseTTL time.Duration

	// DialTimeout bounds [Open]; default [DefaultDialTimeout].
	DialTimeout time.Duration

	// Logger takes one warning for each outage in which records can't be kept,
	// and for each further cause of it, one for each record that another owner
	// replaces, and details at debug level; default none.
	Logger *slog.Logger
}

// withDefaults returns cfg with its zero values replaced, or says what is
// wrong with it.
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
		// etcd's client would leave the certificates aside and send everything
		// in the clear.
		return errors.New("certificates are given, but the endpoints are http, not https")
	}
	return nil
}

// checkEndpoints returns the scheme that the endpoints share.
func checkEndpoints(endpoints []string) (scheme string, err error) {
	for _, e := range endpoints {
		u, err := url.Parse(e)
		switch {
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Path != "":
			return "", fmt.Errorf("endpoint %q is not like %s", e, DefaultEndpoint)
		case u.Port() == "":
			return "", fmt.Errorf("endpoint %q has no port", e)
		case scheme != "" && u.Scheme != scheme:
			// The first endpoint's scheme would hold for all connections.
			return "", errors.New("some endpoints are http and others https")
		}
		scheme = u.Scheme
	}
	return scheme, nil
}
