package kubernetes

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/kubernetes/kubetest"
	"github.com/request-migration/migrate/pkg/discovery/storetest"
)

// TestStore is not parallel, because the suite counts goroutines.
func TestStore(t *testing.T) {
	server := kubetest.Start(t, kubetest.Config{})
	server.Namespace("suite")
	config := server.Kubeconfig(kubetest.User{Token: kubetest.AdminToken}, "suite")
	const leases = "/apis/coordination.k8s.io/v1/namespaces/suite/leases"
	join := func(tb testing.TB) discovery.Store {
		tb.Helper()
		s, err := Open(tb.Context(), Config{Kubeconfig: config, LeaseTTL: 2 * time.Second})
		if err != nil {
			tb.Fatal(err)
		}
		return s
	}
	storetest.Run(t, storetest.Backend{
		Open: func(tb testing.TB) discovery.Store {
			tb.Helper()
			server.Must(http.MethodDelete, leases, "", "")
			return join(tb)
		},
		Join: func(tb testing.TB, _ discovery.Store) discovery.Store {
			tb.Helper()
			return join(tb)
		},
		Break: func(testing.TB, discovery.Store) { server.Kill() },
		Heal:  func(testing.TB, discovery.Store) { server.Restart() },
		Kill:  func(_ testing.TB, s discovery.Store) { kill(s.(*Store)) },
		Overwrite: func(tb testing.TB, _ discovery.Store, key string, value []byte) {
			tb.Helper()
			patch, err := json.Marshal(map[string]any{
				"metadata": map[string]any{"annotations": map[string]string{valueAnnotation: string(value)}},
				"spec":     map[string]any{"holderIdentity": nil, "leaseDurationSeconds": nil},
			})
			if err != nil {
				tb.Fatal(err)
			}
			server.Must(http.MethodPatch, leases+"/"+keptName(key), "application/merge-patch+json", string(patch))
		},
		LeaseTime: 2500 * time.Millisecond,
		TTL:       time.Second,
		MaxValue:  MaxValue,
	})
}

// kill ends a store's work like a crash of its process.
func kill(s *Store) {
	s.life.End()
	clear(s.keeper.kept) // so that Close doesn't delete them
}
