package etcdtest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/internal/suspend"
)

// startTimeout bounds the start of a server. It takes under half a second; the rest is for
// a machine that is busy with other tests.
const startTimeout = 30 * time.Second

// A Config configures a server. The zero Config is plain HTTP without authentication.
type Config struct {
	// CertFile and KeyFile make the server use TLS.
	CertFile, KeyFile string
	// ClientCAFile makes the server refuse clients without a certificate from that CA.
	ClientCAFile string
}

// A Server is one etcd member, on a loopback address that it keeps when it is restarted.
// It grants leases of one second and more, and elects a leader within a second. It ends
// with the test that started it.
//
// Its methods fail the test, so only the test's own goroutine may call them.
type Server struct {
	tb       testing.TB
	ctx      context.Context // outlasts the test's own: what it cleans up may need etcd
	dir      string
	args     []string
	endpoint string
	proc     *process
}

// Start starts a server and returns when it serves.
func Start(tb testing.TB, cfg Config) *Server {
	tb.Helper()
	return start(tb, cfg, 1)[0]
}

// StartCluster starts a cluster of n servers and returns when all serve.
func StartCluster(tb testing.TB, n int) []*Server {
	tb.Helper()
	return start(tb, Config{}, n)
}

func start(tb testing.TB, cfg Config, n int) []*Server {
	tb.Helper()
	// Another process may take a port before etcd binds it. Then all servers start
	// again on other ports.
	for try := 0; ; try++ {
		servers := prepare(tb, cfg, n)
		err := startAll(servers)
		if err == nil {
			return servers
		}
		for _, s := range servers {
			s.proc.kill()
		}
		if try == 4 || !strings.Contains(err.Error(), "address already in use") {
			tb.Fatal(err)
		}
	}
}

// prepare lays out n members that know each other.
func prepare(tb testing.TB, cfg Config, n int) []*Server {
	tb.Helper()
	bin, err := program(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	scheme := "http://"
	if cfg.CertFile != "" {
		scheme = "https://"
	}
	members := make([]string, n)
	peers := make([]string, n)
	for i := range n {
		peers[i] = "http://" + freeAddr(tb)
		members[i] = fmt.Sprintf("m%d=%s", i, peers[i])
	}
	servers := make([]*Server, n)
	for i := range servers {
		dir := tb.TempDir()
		endpoint := scheme + freeAddr(tb)
		s := &Server{tb: tb, ctx: context.WithoutCancel(tb.Context()), dir: dir, endpoint: endpoint, args: []string{
			bin,
			"-name", fmt.Sprintf("m%d", i),
			"-data-dir", filepath.Join(dir, "data"),
			"-listen-client-url", endpoint,
			"-listen-peer-url", peers[i],
			"-initial-cluster", strings.Join(members, ","),
			"-cert-file", cfg.CertFile,
			"-key-file", cfg.KeyFile,
			"-trusted-ca-file", cfg.ClientCAFile,
		}}
		servers[i] = s
		tb.Cleanup(func() {
			s.proc.kill()
			if tb.Failed() {
				tb.Logf("etcd at %s said last:\n%s", s.endpoint, s.logTail())
			}
		})
	}
	return servers
}

// startAll starts the servers at the same time, because a member serves only when most
// members run.
func startAll(servers []*Server) error {
	errs := make([]error, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() { errs[i] = s.launch() })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// launch starts the process and waits until it serves.
func (s *Server) launch() error {
	var err error
	s.proc, err = startProcess(s.ctx, s.args, s.logPath())
	if err != nil {
		return fmt.Errorf("starting etcd: %w", err)
	}
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case <-s.proc.ready:
		return nil
	case <-s.proc.exited:
		return fmt.Errorf("starting etcd at %s: it ended:\n%s", s.endpoint, s.logTail())
	case <-timeout.C:
		return fmt.Errorf("starting etcd at %s: not ready within %v:\n%s", s.endpoint, startTimeout, s.logTail())
	}
}

// Endpoint returns the server's client URL.
func (s *Server) Endpoint() string { return s.endpoint }

// address is where the server listens for clients.
func (s *Server) address() string {
	_, address, _ := strings.Cut(s.endpoint, "://")
	return address
}

// Kill ends the server like kill -9, and returns when it is gone.
func (s *Server) Kill() {
	s.tb.Helper()
	s.proc.kill()
}

// Restart starts a killed server again, with its data and at its address, and returns
// when it serves.
func (s *Server) Restart() {
	s.tb.Helper()
	for try := 0; ; try++ {
		err := s.launch()
		if err == nil {
			return
		}
		s.proc.kill()
		if try == 4 || !strings.Contains(err.Error(), "address already in use") {
			s.tb.Fatal(err)
		}
	}
}

// Wipe removes a killed server's data.
func (s *Server) Wipe() {
	s.tb.Helper()
	if err := os.RemoveAll(filepath.Join(s.dir, "data")); err != nil {
		s.tb.Fatal(err)
	}
}

// Freeze suspends the server: its connections stay open and nothing answers on them.
func (s *Server) Freeze() {
	s.tb.Helper()
	if err := suspend.Freeze(s.proc.cmd.Process); err != nil {
		s.tb.Fatalf("freezing etcd: %v", err)
	}
}

// Thaw resumes a frozen server.
func (s *Server) Thaw() {
	s.tb.Helper()
	if err := suspend.Thaw(s.proc.cmd.Process); err != nil {
		s.tb.Fatalf("thawing etcd: %v", err)
	}
}

func (s *Server) logPath() string { return filepath.Join(s.dir, "log") }

// logTail returns the end of etcd's log, which has the cause.
func (s *Server) logTail() string {
	content, err := os.ReadFile(s.logPath())
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-4096):])
}

// freeAddr returns a loopback address that nobody listens on. Its port is below the
// ephemeral ports (32768 and above on Linux), so that it is still free after the server
// was down for a while.
func freeAddr(tb testing.TB) string {
	tb.Helper()
	var err error
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(randomPort()))
		var l net.Listener
		if l, err = new(net.ListenConfig).Listen(tb.Context(), "tcp", addr); err == nil {
			_ = l.Close()
			return addr
		}
	}
	tb.Fatalf("finding a free port: %v", err)
	return ""
}
