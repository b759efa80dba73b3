package kubetest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery/etcd/etcdtest"
	"github.com/request-migration/migrate/pkg/internal/suspend"
)

// startTimeout bounds the start of the API server. It takes some seconds; the rest is for
// a machine that is busy with other tests.
const startTimeout = 2 * time.Minute

// AdminToken is the token of a user who may do everything.
const AdminToken = "admin-of-the-test"

// A Config configures a server.
type Config struct {
	// Args are further flags of kube-apiserver.
	Args []string
	// ControllerManager also runs the controllers that collect garbage and make
	// service accounts.
	ControllerManager bool
}

// A Server is one kube-apiserver with an etcd of its own, on a loopback address that it
// keeps when it is restarted. It ends with the test that started it.
//
// Its methods fail the test, so only the test's own goroutine may call them, but for
// Request.
type Server struct {
	// CA signs the server's certificate, and those of clients that it believes.
	CA *etcdtest.CA
	// Etcd is what the server keeps everything in.
	Etcd *etcdtest.Server

	tb      testing.TB
	ctx     context.Context // outlasts the test's own: what it cleans up may need the server
	dir     string
	address string
	args    []string
	proc    *process
	manager *process
	http    *http.Client
}

// programs returns the folder of the programs, or skips the test.
func programs(tb testing.TB) string {
	tb.Helper()
	dir := os.Getenv("MIGRATE_KUBERNETES")
	if dir == "" {
		const why = "MIGRATE_KUBERNETES does not name the folder of a kube-apiserver: make test-kubernetes builds one and runs this test"
		if os.Getenv("MIGRATE_REQUIRE_OPTIONAL") != "" {
			tb.Fatal(why)
		}
		tb.Skip(why)
	}
	return dir
}

// Start starts a server and returns when it serves. It skips the test where there is no
// kube-apiserver.
func Start(tb testing.TB, cfg Config) *Server {
	tb.Helper()
	bin := programs(tb)
	s := &Server{
		tb: tb, ctx: context.WithoutCancel(tb.Context()), dir: tb.TempDir(),
		CA: etcdtest.NewCA(tb), Etcd: etcdtest.Start(tb, etcdtest.Config{}),
	}
	ca, err := os.ReadFile(s.CA.File)
	if err != nil {
		tb.Fatal(err)
	}
	// The CA of the test may be renewed; what the server was started with stays.
	clientCA := s.write("client-ca.pem", string(ca))
	cert, key := s.CA.Issue("127.0.0.1")
	accounts := s.signingKey()
	s.address = freeAddr(tb)
	_, port, _ := strings.Cut(s.address, ":")
	s.args = append([]string{
		filepath.Join(bin, "kube-apiserver"),
		"--etcd-servers=" + s.Etcd.Endpoint(),
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		"--secure-port=" + port,
		"--tls-cert-file=" + cert,
		"--tls-private-key-file=" + key,
		"--client-ca-file=" + clientCA,
		"--token-auth-file=" + s.write("tokens.csv", AdminToken+",admin,1,system:masters\n"),
		"--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + accounts,
		"--service-account-signing-key-file=" + accounts,
		"--service-cluster-ip-range=10.0.0.0/24",
		"--endpoint-reconciler-type=none",
		"--cert-dir=" + s.dir,
		"-v=1",
	}, cfg.Args...)
	tb.Cleanup(func() {
		s.manager.kill()
		s.proc.kill()
		if s.http != nil {
			s.http.CloseIdleConnections()
		}
		if tb.Failed() {
			tb.Log(tail(s.logPath()))
		}
	})
	if err := s.launch(); err != nil {
		tb.Fatal(err)
	}
	if cfg.ControllerManager {
		s.startManager(filepath.Join(bin, "kube-controller-manager"), accounts, clientCA)
	}
	return s
}

func (s *Server) startManager(bin, accounts, ca string) {
	s.tb.Helper()
	config := s.Kubeconfig(User{Token: AdminToken}, "default")
	var err error
	s.manager, err = startProcess(s.ctx, []string{
		bin, "--kubeconfig=" + config, "--authentication-kubeconfig=" + config, "--authorization-kubeconfig=" + config,
		"--controllers=garbage-collector-controller,namespace-controller,serviceaccount-controller,root-ca-certificate-publisher-controller",
		"--service-account-private-key-file=" + accounts, "--root-ca-file=" + ca,
		"--leader-elect=false", "--secure-port=0", "--cert-dir=" + s.dir,
	}, filepath.Join(s.dir, "manager.log"))
	if err != nil {
		s.tb.Fatalf("starting kube-controller-manager: %v", err)
	}
}

// launch starts the process and waits until it serves.
func (s *Server) launch() error {
	ca, err := os.ReadFile(s.CA.File) // which the test may have renewed
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	s.http = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true,
	}}
	s.proc, err = startProcess(s.ctx, s.args, s.logPath())
	if err != nil {
		return fmt.Errorf("starting kube-apiserver: %w", err)
	}
	ctx, cancel := context.WithTimeout(s.ctx, startTimeout)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-s.proc.exited:
			return fmt.Errorf("starting kube-apiserver: it ended: %s", tail(s.logPath()))
		case <-ctx.Done():
			return fmt.Errorf("starting kube-apiserver: not ready within %v: %s", startTimeout, tail(s.logPath()))
		case <-ticker.C:
		}
		if code, _, err := s.Request(ctx, http.MethodGet, "/readyz", "", nil); err == nil && code == http.StatusOK {
			return nil
		}
	}
}

// Request makes a request as the user who may do everything.
func (s *Server) Request(ctx context.Context, method, path, kind string, body []byte) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.URL()+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+AdminToken)
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// Must is Request for what must succeed.
func (s *Server) Must(method, path, kind, body string) []byte {
	s.tb.Helper()
	status, answer, err := s.Request(s.ctx, method, path, kind, []byte(body))
	if err != nil || status >= http.StatusMultipleChoices {
		s.tb.Fatalf("%s %s: status %d, %v:\n%s", method, path, status, err, answer)
	}
	return answer
}

// Namespace makes a namespace of that name.
func (s *Server) Namespace(name string) {
	s.tb.Helper()
	s.Must(http.MethodPost, "/api/v1/namespaces", "application/json", `{"metadata":{"name":"`+name+`"}}`)
}

// URL returns where the server listens.
func (s *Server) URL() string { return "https://" + s.address }

// Address returns the host and port where the server listens.
func (s *Server) Address() string { return s.address }

// Kill ends the server like kill -9, and returns when it is gone.
func (s *Server) Kill() {
	s.tb.Helper()
	s.proc.kill()
}

// Restart starts a killed server again at its address, and returns when it serves.
func (s *Server) Restart() {
	s.tb.Helper()
	if err := s.launch(); err != nil {
		s.tb.Fatal(err)
	}
}

// Freeze suspends the server: its connections stay open and nothing answers on them.
func (s *Server) Freeze() {
	s.tb.Helper()
	if err := suspend.Freeze(s.proc.cmd.Process); err != nil {
		s.tb.Fatalf("freezing kube-apiserver: %v", err)
	}
}

// Thaw resumes a frozen server.
func (s *Server) Thaw() {
	s.tb.Helper()
	if err := suspend.Thaw(s.proc.cmd.Process); err != nil {
		s.tb.Fatalf("thawing kube-apiserver: %v", err)
	}
}

// A User is who a kubeconfig speaks for, by one of these.
type User struct {
	Token             string
	TokenFile         string
	CertFile, KeyFile string
}

// Kubeconfig writes a kubeconfig for that user and namespace, and returns its path.
func (s *Server) Kubeconfig(u User, namespace string) string {
	s.tb.Helper()
	return s.KubeconfigAt(s.URL(), u, namespace)
}

// KubeconfigAt is Kubeconfig for a server that is reached at another URL.
func (s *Server) KubeconfigAt(url string, u User, namespace string) string {
	s.tb.Helper()
	user := "token: " + u.Token
	switch {
	case u.TokenFile != "":
		user = "tokenFile: " + u.TokenFile
	case u.CertFile != "":
		user = "client-certificate: " + u.CertFile + "\n    client-key: " + u.KeyFile
	}
	return s.write(fmt.Sprintf("kubeconfig-%d", mathrand.Int64()), fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
clusters:
- name: test
  cluster:
    server: %s
    certificate-authority: %s
contexts:
- name: test
  context: {cluster: test, user: test, namespace: %s}
users:
- name: test
  user:
    %s
`, url, s.CA.File, namespace, user))
}

func (s *Server) write(name, content string) (path string) {
	s.tb.Helper()
	path = filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		s.tb.Fatal(err)
	}
	return path
}

// signingKey makes the key that signs the tokens of service accounts.
func (s *Server) signingKey() (path string) {
	s.tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.tb.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		s.tb.Fatal(err)
	}
	return s.write("accounts.pem", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})))
}

func (s *Server) logPath() string { return filepath.Join(s.dir, "log") }

// freeAddr returns a loopback address that nobody listens on. Its port is below the
// ephemeral ports (32768 and above on Linux), so that it is still free after the server
// was down for a while.
func freeAddr(tb testing.TB) string {
	tb.Helper()
	var err error
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(20000+mathrand.IntN(12000)))
		var l net.Listener
		if l, err = new(net.ListenConfig).Listen(tb.Context(), "tcp", addr); err == nil {
			_ = l.Close()
			return addr
		}
	}
	tb.Fatalf("finding a free port: %v", err)
	return ""
}
