package etcd

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery/etcd/etcdtest"
)

// refuses checks that Open fails within a time, with an error that has all of
// the texts.
func refuses(t *testing.T, cfg Config, within time.Duration, texts ...string) {
	t.Helper()
	began := time.Now()
	s, err := Open(t.Context(), cfg)
	took := time.Since(began)
	if err == nil {
		_ = s.Close()
		t.Fatalf("Open(%+v) succeeded", cfg)
	}
	t.Logf("after %v: %v", took.Round(time.Millisecond), err)
	if took > within {
		t.Errorf("Open took %v, want %v at the most", took, within)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("Open's error has no %q: %v", text, err)
		}
	}
}

// atOnce is well below the dial timeout: the error was not waited out.
const atOnce = DefaultDialTimeout / 2

func TestOpenConfig(t *testing.T) {
	t.Parallel()
	for text, cfg := range map[string]Config{
		"\"http://etcd\" has no port":    {Endpoints: []string{" etcd/ "}},
		"is not like http":               {Endpoints: []string{"ftp://localhost:2379"}},
		"has no port":                    {Endpoints: []string{"http://localhost"}},
		"some endpoints are http":        {Endpoints: []string{"http://a:1", "https://b:1"}},
		"not https":                      {CAFile: "ca.pem"},
		"\"https://a\" has no port":      {Endpoints: []string{"a"}, CAFile: "ca.pem"},
		"a user name and a password":     {Username: "root"},
		"certificate and its key":        {Endpoints: []string{"https://a:1"}, CertFile: "c.pem"},
		"negative lease time":            {LeaseTTL: -1},
		"negative dial timeout":          {DialTimeout: -1},
		"CA's certificate":               {Endpoints: []string{"https://a:1"}, CAFile: "does-not-exist"},
		"reading the client":             {Endpoints: []string{"https://a:1"}, CertFile: "no", KeyFile: "no"},
		"no certificate in open_test.go": {Endpoints: []string{"https://a:1"}, CAFile: "open_test.go"},
	} {
		refuses(t, cfg, atOnce, "etcd", text)
	}
}

func TestOpenDown(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	server.Kill()
	const other = "http://127.0.0.1:1"
	refuses(t, Config{Endpoints: []string{server.Endpoint(), other}}, atOnce,
		server.Endpoint(), other, "connection refused")
}

func TestOpenNoAnswer(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	server.Freeze()
	cfg := at(server)
	cfg.DialTimeout = time.Second
	refuses(t, cfg, 2*time.Second, server.Endpoint(), "no answer within 1s")
}

func TestOpenCancelled(t *testing.T) {
	t.Parallel()
	// It accepts connections and never answers.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = Open(ctx, Config{Endpoints: []string{"http://" + silent.Addr().String()}, Username: "u", Password: "p"})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open's error is %v, want %v", err, context.DeadlineExceeded)
	}
}

func TestOpenAuth(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	server.EnableAuth("secret")
	cfg := at(server)
	refuses(t, cfg, atOnce, server.Endpoint(), "user name is empty")
	cfg.Username, cfg.Password = "root", "wrong"
	refuses(t, cfg, atOnce, server.Endpoint(), "authentication failed")

	cfg.Password = "secret"
	logged, log := capture()
	cfg.Logger = log
	s := openStore(t, cfg)
	watch := observe(t, s)
	put(t, s, one, "1", 0)
	watch.untilFresh(one)

	// etcd keeps tokens in memory, and has none after a restart.
	server.Kill()
	watch.untilStale(one)
	server.Restart()
	began := time.Now()
	watch.untilFresh(one)
	healed(t, "the watch is back", began)
	put(t, s, two, "2", 0)
	watch.untilFresh(one, two)
	for _, w := range logged.warnings() {
		if w != lineWarned {
			t.Errorf("a warning that is not of the outage: %s", w)
		}
	}
}

func TestOpenTLS(t *testing.T) {
	t.Parallel()
	ca, stranger := etcdtest.NewCA(t), etcdtest.NewCA(t)
	serverCert, serverKey := ca.Issue("127.0.0.1")
	server := etcdtest.Start(t, etcdtest.Config{CertFile: serverCert, KeyFile: serverKey, ClientCAFile: ca.File})
	clientCert, clientKey := ca.Issue("client")
	strangersCert, strangersKey := stranger.Issue("client")

	cfg := at(server)
	cfg.CertFile, cfg.KeyFile = clientCert, clientKey
	refuses(t, cfg, atOnce, server.Endpoint(), "certificate signed by unknown authority")

	cfg.CAFile = stranger.File
	refuses(t, cfg, atOnce, server.Endpoint(), "x509: certificate signed by unknown authority")
	cfg.CAFile = ca.File

	other := cfg
	other.Endpoints = []string{strings.Replace(server.Endpoint(), "127.0.0.1", "localhost", 1)}
	refuses(t, other, atOnce, other.Endpoints[0], "x509: certificate is")

	other = cfg
	other.CertFile, other.KeyFile = "", ""
	refuses(t, other, atOnce, server.Endpoint(), "tls: certificate required")

	other.CertFile, other.KeyFile = strangersCert, strangersKey
	refuses(t, other, atOnce, server.Endpoint(), "tls: unknown certificate authority")

	// The cause is the same if etcd has to check a password first.
	other.Username, other.Password = "root", "secret"
	refuses(t, other, atOnce, server.Endpoint(), "tls: unknown certificate authority")

	other = Config{Endpoints: []string{strings.Replace(server.Endpoint(), "https:", "http:", 1)}}
	refuses(t, other, atOnce, other.Endpoints[0], "want https")

	s := openStore(t, cfg)
	watch := observe(t, s)
	put(t, s, one, "1", 0)
	watch.untilFresh(one)
}

func TestOpenPlainServer(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	https := strings.Replace(server.Endpoint(), "http:", "https:", 1)
	refuses(t, Config{Endpoints: []string{https}}, atOnce, https, "without TLS")
}

// TestOpenSilent opens a store at an endpoint that accepts connections and never answers.
func TestOpenSilent(t *testing.T) {
	t.Parallel()
	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	ca := etcdtest.NewCA(t)
	for _, cfg := range []Config{
		{Endpoints: []string{"http://" + silent.Addr().String()}},
		{Endpoints: []string{"https://" + silent.Addr().String()}, CAFile: ca.File},
		{Endpoints: []string{"http://" + silent.Addr().String()}, Username: "u", Password: "p"},
	} {
		refuses(t, cfg, patient, silent.Addr().String(), "no answer")
	}
}

// TestRotatedCertificates lets the client's certificate expire, and then replaces it, the
// server's and the CA's. In between the store warns of the new cause although it has
// warned of the outage before. It goes on with the new certificates.
func TestRotatedCertificates(t *testing.T) {
	t.Parallel()
	ca := etcdtest.NewCA(t)
	serverCert, serverKey := ca.Issue("127.0.0.1")
	end := time.Now().Add(5 * time.Second)
	clientCert, clientKey := ca.IssueUntil("client", end)
	server := etcdtest.Start(t, etcdtest.Config{CertFile: serverCert, KeyFile: serverKey, ClientCAFile: ca.File})
	cfg := at(server)
	cfg.CAFile, cfg.CertFile, cfg.KeyFile = ca.File, clientCert, clientKey
	tr := trouble(t, cfg, cfg)

	server.Kill()
	tr.watch.untilStale(one)
	tr.logs.wait(t, lineWarned, 1)
	<-time.After(time.Until(end))
	server.Restart()
	tr.logs.waitCause(t, lineWarned, "expired certificate")
	ca.Issue("client")
	tr.logs.wait(t, lineHealed, 1)
	tr.watch.untilFresh(one)

	warned := tr.logs.count(lineWarned)
	server.Kill()
	tr.logs.wait(t, lineWarned, warned+1)
	ca.Renew()
	ca.Issue("127.0.0.1")
	ca.Issue("client")
	server.Restart()
	tr.logs.wait(t, lineHealed, 2)
	put(t, tr.owner, two, "2", 0)
	tr.watch.untilFresh(one, two)
}
