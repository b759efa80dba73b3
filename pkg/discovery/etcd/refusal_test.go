package etcd

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/request-migration/migrate/pkg/discovery/etcd/etcdtest"
)

// firstSet returns the error of a watch's first set.
func firstSet(t *testing.T, s *Store) error {
	t.Helper()
	for _, err := range s.Watch(t.Context(), prefix) {
		return err
	}
	t.Fatal("the watch ended without an error")
	return nil
}

// TestRefusedListSaysWhy has a user who may read nothing. It tries many times, because
// either the refusal or the end of the watch may come first.
func TestRefusedListSaysWhy(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	server.AddUser("nobody", "secret")
	server.EnableAuth("secret")
	cfg := at(server)
	cfg.Username, cfg.Password = "nobody", "secret"
	s := openStore(t, cfg)
	for range 100 {
		if err := firstSet(t, s); !errors.Is(err, rpctypes.ErrPermissionDenied) || !strings.Contains(err.Error(), "permission denied") {
			t.Fatalf("the watch ended with %v, want %v", err, rpctypes.ErrPermissionDenied)
		}
	}
	if _, err := s.Put(t.Context(), one, []byte("1"), 0); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("Put ended with %v, want %v", err, rpctypes.ErrPermissionDenied)
	}
}

// TestPassingRefusals checks that Open, a first list and a Put repeat requests that etcd
// refuses for a passing reason, several times each.
func TestPassingRefusals(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	for _, refusal := range []error{
		rpctypes.ErrGRPCRequestTooManyRequests, rpctypes.ErrGRPCNotSupportedForLearner, rpctypes.ErrGRPCLeaderChanged,
		rpctypes.ErrGRPCNotLeader, rpctypes.ErrGRPCNoLeader, rpctypes.ErrGRPCAuthOldRevision,
	} {
		t.Run(refusal.Error(), func(t *testing.T) {
			t.Parallel()
			gateway := etcdtest.StartGateway(t, server)
			var left atomic.Int64
			refuse := func(string) error {
				if left.Add(-1) >= 0 {
					return refusal
				}
				return nil
			}
			// More than etcd's own client repeats by itself.
			again := func() { left.Store(4); gateway.Refuse(refuse) }
			again()
			s := openStore(t, Config{Endpoints: []string{gateway.Endpoint()}})
			again()
			if err := firstSet(t, s); err != nil {
				t.Errorf("the watch ended with %v", err)
			}
			again()
			put(t, s, one, "1", 0)
			again()
			put(t, s, two, "2", time.Minute)
		})
	}
}

// TestLastingRefusal checks that a refusal that does not pass is returned in etcd's words,
// by Open too, and within bounded time.
func TestLastingRefusal(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	gateway := etcdtest.StartGateway(t, server)
	cfg := Config{Endpoints: []string{gateway.Endpoint()}}
	s := openStore(t, cfg)
	s.patience = 500 * time.Millisecond
	gateway.Refuse(func(string) error { return rpctypes.ErrGRPCRequestTooManyRequests })
	if err := firstSet(t, s); !errors.Is(err, rpctypes.ErrTooManyRequests) {
		t.Errorf("the watch ended with %v, want %v", err, rpctypes.ErrTooManyRequests)
	}
	cfg.DialTimeout = time.Second
	refuses(t, cfg, patient, "too many requests")
	gateway.Refuse(nil)
}
