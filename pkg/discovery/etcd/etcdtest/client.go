package etcdtest

import (
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Client returns etcd's own client of the servers, for what a test does without the code
// that it tests. The client is closed when the test ends.
func Client(tb testing.TB, servers ...*Server) *clientv3.Client {
	tb.Helper()
	cfg := clientv3.Config{DialTimeout: 5 * time.Second, Logger: zap.NewNop()}
	for _, s := range servers {
		cfg.Endpoints = append(cfg.Endpoints, s.Endpoint())
	}
	client, err := clientv3.New(cfg)
	if err != nil {
		tb.Fatalf("connecting to etcd: %v", err)
	}
	tb.Cleanup(func() { _ = client.Close() })
	return client
}

// EnableAuth adds the user root with that password, and makes the server ask for
// passwords from now on.
func (s *Server) EnableAuth(password string) {
	s.tb.Helper()
	ctx, client := s.tb.Context(), Client(s.tb, s)
	if _, err := client.UserAdd(ctx, "root", password); err != nil {
		s.tb.Fatalf("adding root to etcd: %v", err)
	}
	if _, err := client.UserGrantRole(ctx, "root", "root"); err != nil {
		s.tb.Fatalf("making root etcd's root: %v", err)
	}
	if _, err := client.AuthEnable(ctx); err != nil {
		s.tb.Fatalf("enabling etcd's authentication: %v", err)
	}
}

// AddUser adds a user without any rights to a server without authentication.
func (s *Server) AddUser(name, password string) {
	s.tb.Helper()
	if _, err := Client(s.tb, s).UserAdd(s.tb.Context(), name, password); err != nil {
		s.tb.Fatalf("adding %s to etcd: %v", name, err)
	}
}
