package kubernetes

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/connrotation"
)

const (
	connectTimeout = 3 * time.Second
	// reloadEvery bounds how often the configuration is read again while the API
	// server refuses it.
	reloadEvery = time.Second
)

// An access is the way to the API server: one client, made anew when the configuration
// on the disk has changed. It is safe for concurrent use.
type access struct {
	cfg       Config
	namespace string
	clock     *clock
	heard     atomic.Int64 // when the server last gave a sign of life, in ns after clock.began
	current   atomic.Pointer[client]

	mu     sync.Mutex // guards what follows
	loaded time.Time  // when the configuration was last read
}

// A client is one http.Client and what it was made of.
type client struct {
	http   *http.Client
	leases string // the URL of the namespace's Leases
	server string
	dialer *connrotation.Dialer
	from   *rest.Config
}

func newAccess(cfg Config) (*access, error) {
	a := &access{cfg: cfg, clock: newClock(), loaded: time.Now()}
	c, namespace, err := load(cfg)
	if err != nil {
		return nil, err
	}
	a.namespace = namespace
	a.current.Store(c)
	return a, nil
}

// load reads the configuration and makes a client of it.
func load(cfg Config) (*client, string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = cfg.Kubeconfig
	rules.Warner = func(error) {} // of a file in $KUBECONFIG that is missing, which is no harm
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{})
	from, err := loader.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		err = errors.New("there is no kubeconfig ($KUBECONFIG or ~/.kube/config), and this process does not run in a Pod with a service account")
	}
	if err != nil {
		return nil, "", err
	}
	namespace := cfg.Namespace
	if namespace == "" {
		if namespace, _, err = loader.Namespace(); err != nil {
			return nil, "", fmt.Errorf("finding the namespace: %w", err)
		}
	}
	c, err := newClient(from, namespace)
	return c, namespace, err
}

func newClient(from *rest.Config, namespace string) (*client, error) {
	// With the files' contents in place of their names client-go starts no goroutines
	// that watch the files and never end. The name of a token's file stays: it is read
	// again every minute.
	if err := rest.LoadTLSFiles(from); err != nil {
		return nil, fmt.Errorf("reading certificates: %w", err)
	}
	from.CAFile, from.CertFile, from.KeyFile = "", "", ""
	host, _, err := rest.DefaultServerUrlFor(from)
	if err != nil {
		return nil, fmt.Errorf("reading the address of the API server: %w", err)
	}
	c := &client{
		server: host.String(),
		leases: host.JoinPath("apis/coordination.k8s.io/v1/namespaces", namespace, "leases").String(),
		dialer: connrotation.NewDialer((&net.Dialer{Timeout: connectTimeout, KeepAlive: 10 * time.Second}).DialContext),
		from:   rest.CopyConfig(from),
	}
	from.Dial = c.dialer.DialContext
	from.UserAgent = "migrate"
	if c.http, err = rest.HTTPClientFor(from); err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	return c, nil
}

func (a *access) server() string { return a.current.Load().server }

// reload makes a new client if the configuration on the disk has changed since tried was
// made, and reports whether there is another one to try.
func (a *access) reload(tried *client) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.current.Load() != tried {
		return true
	}
	if time.Since(a.loaded) < reloadEvery {
		return false
	}
	a.loaded = time.Now()
	next, _, err := load(a.cfg)
	if err != nil || reflect.DeepEqual(next.from, tried.from) {
		return false // half written, or the same
	}
	a.current.Store(next)
	tried.close()
	return true
}

// renewConnections closes all connections. One that is silent may be dead, while a new one
// would work.
func (a *access) renewConnections() { a.current.Load().dialer.CloseAll() }

func (a *access) close() { a.current.Load().close() }

func (c *client) close() {
	c.http.CloseIdleConnections()
	c.dialer.CloseAll()
}

// silence returns how long the API server has given no sign of life.
func (a *access) silence() time.Duration {
	return time.Since(a.clock.began) - time.Duration(a.heard.Load())
}

func (a *access) hear() { a.heard.Store(int64(time.Since(a.clock.began))) }

// do makes a request for a Lease, or for all if name is empty. If the credentials or the
// server's certificate are refused it tries once more with what is on the disk now. The
// answer's body must be closed unless err is not nil.
func (a *access) do(ctx context.Context, method, name string, query url.Values, kind string, body []byte) (*http.Response, error) {
	for {
		c := a.current.Load()
		resp, err := a.send(ctx, c, method, name, query, kind, body)
		refused := err == nil && resp.StatusCode == http.StatusUnauthorized || untrusted(err)
		if !refused || !a.reload(c) {
			return resp, err
		}
		if err == nil {
			drain(resp)
		}
	}
}

// send makes one request, and learns the server's time from the answer.
func (a *access) send(ctx context.Context, c *client, method, name string, query url.Values, kind string, body []byte) (*http.Response, error) {
	target := c.leases
	if name != "" {
		target += "/" + name
	}
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	sent := time.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		if failure, ok := errors.AsType[*url.Error](err); ok {
			err = failure.Err // the address is said elsewhere
		}
		return nil, err
	}
	a.hear()
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		a.clock.observe(sent, time.Now(), date)
	}
	return resp, nil
}

// untrusted reports whether a connection failed because one side refused the other's
// certificate.
func untrusted(err error) bool {
	if err == nil {
		return false
	}
	_, unverified := errors.AsType[*tls.CertificateVerificationError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, alert := errors.AsType[tls.AlertError](err)
	return unverified || unknown || alert || strings.Contains(err.Error(), "remote error: tls: ")
}

// drain reads what is left of an answer, so that its connection can be used again.
func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	_ = resp.Body.Close()
}
