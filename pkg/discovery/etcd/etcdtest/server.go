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
)

// startTimeout bounds how long a server may take to serve. It takes under half
// a second; the rest is for a machine that is busy with other tests.
const startTimeout = 30 * time.Second

// Config is what a server may have that others have not. The zero Config is
// plain HTTP without authentication.
type Config struct {
	// CertFile and KeyFile make it serve TLS.
	CertFile, KeyFile string
	// ClientCAFile makes it refuse clients without a certificate from that CA.
	ClientCAFile string
}

// A Server is one etcd member, on a loopback address that it keeps when it is
// started again. It grants leases of one second and more, and elects a leader
// within a second. It ends with the test that started it.
//
// Its methods fail the test, and so belong into the test's own goroutine.
type Server struct {
	tb       testing.TB
	ctx      context.Context // outlasts the test's own: what it cleans up may need etcd
	dir      string
	args     []string
	endpoint string
	proc     *process
}

// Start runs a server and returns when it serves.
func Start(tb testing.TB, cfg Config) *Server {
	tb.Helper()
	return start(tb, cfg, 1)[0]
}

// StartCluster runs n servers that are one cluster and returns when all serve.
func StartCluster(tb testing.TB, n int) []*Server {
	tb.Helper()
	return start(tb, Config{}, n)
}

func start(tb testing.TB, cfg Config, n int) []*Server {
	tb.Helper()
	// Another process may take a port between the moment it was seen free and
	// the moment etcd binds it. Then all start again elsewhere.
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

// startAll starts the servers at once, for a member of a cluster serves only
// when most of them are there.
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

// Kill ends the server as kill -9 does, and returns when it is gone.
func (s *Server) Kill() {
	s.tb.Helper()
	s.proc.kill()
}

// Restart starts a killed server again, on its data and at its address, and
// returns when it serves.
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

// Freeze stops the server where it stands: its connections stay open and
// nothing answers on them.
func (s *Server) Freeze() {
	s.tb.Helper()
	if err := freeze(s.proc.cmd.Process); err != nil {
		s.tb.Fatalf("freezing etcd: %v", err)
	}
}

// Thaw lets a frozen server run on.
func (s *Server) Thaw() {
	s.tb.Helper()
	if err := thaw(s.proc.cmd.Process); err != nil {
		s.tb.Fatalf("thawing etcd: %v", err)
	}
}

func (s *Server) logPath() string { return filepath.Join(s.dir, "log") }

// logTail returns the last of what etcd logged; the cause is at the end.
func (s *Server) logTail() string {
	content, err := os.ReadFile(s.logPath())
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-4096):])
}

// freeAddr returns a loopback address that nobody listens on. It looks below
// the ports that systems hand out by themselves (32768 and up on Linux), so
// that a server which is down for a while finds its port free again.
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
