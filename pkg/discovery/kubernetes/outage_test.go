package kubernetes

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/etcd/etcdtest"
	"github.com/request-migration/migrate/pkg/discovery/kubernetes/kubetest"
)

// A troubled test has an owner and a reader of one record, each with its own store.
type troubled struct {
	owner *Store
	logs  *logs
	watch *observer
}

func trouble(t *testing.T, owner, reader Config) troubled {
	t.Helper()
	var tr troubled
	tr.logs, owner.Logger = capture()
	tr.owner = openStore(t, owner)
	put(t, tr.owner, one, "1", 0)
	tr.watch = observe(t, openStore(t, reader))
	tr.watch.untilFresh(one)
	return tr
}

func TestKilledAndRestarted(t *testing.T) {
	t.Parallel()
	server := startServer(t, kubetest.Config{})
	tr := trouble(t, admin(server), admin(server))
	tr.watch.always = []string{one}

	server.Kill()
	began := time.Now()
	tr.watch.untilStale(one)
	t.Logf("stale %v after the kill", time.Since(began).Round(time.Millisecond))
	tr.logs.wait(t, lineWarned, 1)
	tr.logs.wait(t, "renewal failed again", 4) // longer than the lease

	server.Restart()
	began = time.Now()
	tr.watch.untilFresh(one)
	healed(t, "the watch is current", began)
	tr.logs.wait(t, lineHealed, 1)
	healed(t, "the owner is registered", began)
	put(t, tr.owner, two, "2", 0)
	tr.watch.untilFresh(one, two)
	tr.logs.warnedOnce(t)
}

// TestFrozen freezes the API server, and then the etcd behind it, for longer than the
// lease. Nobody can renew meanwhile, so no reader may take anybody to be dead.
func TestFrozen(t *testing.T) {
	t.Parallel()
	server := startServer(t, kubetest.Config{})
	tr := trouble(t, admin(server), admin(server))
	tr.watch.always = []string{one}
	for n, target := range []interface {
		Freeze()
		Thaw()
	}{server, server.Etcd} {
		target.Freeze()
		began := time.Now()
		tr.watch.untilStale(one) // which takes longer than the lease
		t.Logf("stale %v after the freeze", time.Since(began).Round(time.Millisecond))
		tr.logs.wait(t, lineWarned, n+1)

		target.Thaw()
		began = time.Now()
		tr.logs.wait(t, lineHealed, n+1)
		healed(t, "the owner is registered", began)
		tr.watch.untilFresh(one)
		healed(t, "the watch is current", began)
	}
}

// TestPartitioned cuts off the owner alone, for longer than its lease lasts, and then the
// reader alone, who misses changes.
func TestPartitioned(t *testing.T) {
	t.Parallel()
	server := startServer(t, kubetest.Config{})
	ownerProxy := etcdtest.StartProxyTo(t, "https", server.Address())
	readerProxy := etcdtest.StartProxyTo(t, "https", server.Address())
	tr := trouble(t, via(server, ownerProxy.Endpoint()), via(server, readerProxy.Endpoint()))

	ownerProxy.Cut()
	tr.watch.untilFresh() // the reader sees that the lease has expired
	tr.logs.wait(t, lineWarned, 1)
	ownerProxy.Heal()
	began := time.Now()
	tr.watch.untilFresh(one)
	healed(t, "the owner is registered", began)
	tr.logs.wait(t, lineHealed, 1)
	tr.logs.warnedOnce(t)

	tr.watch.always = []string{one}
	readerProxy.Cut()
	tr.watch.untilStale(one)
	if err := put(t, tr.owner, two, "2", 0).Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, tr.owner, one, "changed", 0)
	readerProxy.Heal()
	began = time.Now()
	tr.watch.untilFresh(one)
	healed(t, "the watch is current", began)
	tr.logs.warnedOnce(t)
}

// TestRenewalsRefused takes the owner's permission away and gives it back.
func TestRenewalsRefused(t *testing.T) {
	t.Parallel()
	server := startServer(t, kubetest.Config{})
	user := grant(t, server)
	tr := trouble(t, Config{Kubeconfig: server.Kubeconfig(user, space)}, admin(server))

	const bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/" + space + "/rolebindings"
	binding := server.Must(http.MethodGet, bindings+"/migrate", "", "")
	server.Must(http.MethodDelete, bindings+"/migrate", "", "")
	tr.logs.waitCause(t, lineWarned, "no permission to update leases", "namespace "+space, "docs/kubernetes/role.yaml")
	tr.watch.untilFresh()
	_, err := tr.owner.Put(t.Context(), two, []byte("2"), 0)
	if err == nil || !strings.Contains(err.Error(), "no permission to create leases (coordination.k8s.io) in namespace "+space) {
		t.Errorf("Put without permission: %v", err)
	}
	for _, err := range tr.owner.Watch(t.Context(), prefix) {
		if err == nil || !strings.Contains(err.Error(), "no permission to list leases (coordination.k8s.io) in namespace "+space) {
			t.Errorf("Watch without permission: %v", err)
		}
	}

	server.Must(http.MethodPost, bindings, "application/json", withoutVersion(t, binding))
	began := time.Now()
	tr.watch.untilFresh(one)
	healed(t, "the owner is registered", began)
	tr.logs.wait(t, lineHealed, 1)
}

// TestWebhookRefuses lets the owner's renewals fail as by an admission webhook that is
// down, for longer than the lease.
func TestWebhookRefuses(t *testing.T) {
	t.Parallel()
	server := startServer(t, kubetest.Config{})
	proxy := kubetest.StartProxy(t, server)
	tr := trouble(t, via(server, proxy.URL), admin(server))
	proxy.Set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut {
			return false
		}
		refuse(w, http.StatusInternalServerError, "InternalError", `failed calling webhook "policy.example.com": connection refused`)
		return true
	})
	tr.logs.waitCause(t, lineWarned, "failed calling webhook")
	tr.watch.untilFresh()
	proxy.Set(nil)
	began := time.Now()
	tr.watch.untilFresh(one)
	healed(t, "the owner is registered", began)
	tr.logs.warnedOnce(t)
}

// TestThrottled answers the owner with 429, as priority and fairness does. It does not
// ask before the time that the answer names.
func TestThrottled(t *testing.T) {
	t.Parallel()
	server := startServer(t, kubetest.Config{})
	proxy := kubetest.StartProxy(t, server)
	cfg := via(server, proxy.URL)
	cfg.LeaseTTL = 6 * time.Second
	tr := trouble(t, cfg, admin(server))
	tr.watch.always = []string{one}

	var asked, early atomic.Int64
	var last atomic.Int64 // ns after began
	began := time.Now()
	proxy.Set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet {
			return false
		}
		now := int64(time.Since(began))
		if before := last.Swap(now); before > 0 && now-before < int64(time.Second) {
			early.Add(1)
		}
		if asked.Add(1) > 3 {
			return false
		}
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusTooManyRequests, "TooManyRequests", "the server has received too many requests and has asked us to try again later")
		return true
	})
	eventually(t, "the owner has been refused three times", func() bool { return asked.Load() >= 4 })
	if n := early.Load(); n > 0 {
		t.Errorf("%d requests came before the time that the last answer named", n)
	}
	proxy.Set(nil)
	put(t, tr.owner, two, "2", 0)
	tr.watch.untilFresh(one, two)
}

func refuse(w http.ResponseWriter, code int, reason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"reason":%q,"message":%q}`, code, reason, message)
}

// TestWatchExpired lets a reader ask for a version that the API server no longer has. The
// server's own answer, 410, makes it list again.
func TestWatchExpired(t *testing.T) {
	t.Parallel()
	server := startServer(t, kubetest.Config{})
	proxy := kubetest.StartProxy(t, server)
	tr := trouble(t, admin(server), via(server, proxy.URL))
	tr.watch.always = []string{one}
	server.Kill() // also forgets what its watches would have to be told
	tr.watch.untilStale(one)
	var expired atomic.Bool
	proxy.Set(func(_ http.ResponseWriter, r *http.Request) bool {
		query := r.URL.Query()
		if query.Get("watch") != "" && !expired.Swap(true) {
			query.Set("resourceVersion", "1")
			r.URL.RawQuery = query.Encode()
		}
		return false
	})
	server.Restart()
	tr.watch.untilFresh(one)
	eventually(t, "the reader has asked for an old version", expired.Load)
	put(t, tr.owner, two, "2", 0)
	tr.watch.untilFresh(one, two)
}

// TestByHand deletes and edits the owner's object, which then is as it was.
func TestByHand(t *testing.T) {
	t.Parallel()
	server := startServer(t, kubetest.Config{})
	tr := trouble(t, admin(server), admin(server))

	server.Must(http.MethodDelete, leasePath(), "", "")
	tr.watch.untilFresh()
	began := time.Now()
	tr.watch.untilFresh(one)
	healed(t, "the owner is registered", began)
	tr.logs.wait(t, lineGone, 1)

	for n, edit := range []string{
		`{"metadata":{"annotations":{"` + valueAnnotation + `":"x"}}}`,
		`{"metadata":{"labels":null}}`,
		`{"metadata":{"annotations":null}}`,
		`{"spec":{"holderIdentity":null,"leaseDurationSeconds":null,"renewTime":null}}`,
	} {
		server.Must(http.MethodPatch, leasePath(), mergePatch, edit)
		tr.logs.wait(t, lineEdited, n+1)
		observe(t, tr.owner).until("the record as it was", func(snap discovery.Snapshot) bool {
			return snap.Stale == nil && values(snap)[one] == "1"
		})
	}
	if w := tr.logs.warnings(); len(w) != 0 {
		t.Errorf("the owner warned: %q", w)
	}
	// Readers that come now find it, by its labels, and it is still renewed.
	later := observe(t, openStore(t, admin(server)))
	later.untilFresh(one)
}

// TestClocksDiffer sets the clocks of an owner and its readers hours apart.
func TestClocksDiffer(t *testing.T) {
	t.Parallel()
	server := startServer(t, kubetest.Config{})
	skewed := func(by time.Duration) *Store {
		t.Helper()
		s := openStore(t, admin(server))
		s.clock.mu.Lock()
		defer s.clock.mu.Unlock()
		s.clock.base = s.clock.base.Add(by)
		return s
	}
	owner := skewed(time.Hour)
	put(t, owner, one, "1", 0)
	put(t, owner, two, "2", 20*time.Second)
	late, early := observe(t, skewed(-2*time.Hour)), observe(t, skewed(2*time.Hour))
	for _, watch := range []*observer{late, early} {
		watch.untilFresh(one, two)
	}
	reader := skewed(-2 * time.Hour)
	expiry, err := reader.Expiry(t.Context(), two)
	if err != nil || expiry <= 0 || expiry > 20*time.Second {
		t.Errorf("Expiry of a record with a ttl of 20 s: %v, %v", expiry, err)
	}
	// Somebody sets the time of the renewal by hand, far off. Only renewals count.
	for _, when := range []string{"2001-01-01T00:00:00.000000Z", "2101-01-01T00:00:00.000000Z"} {
		server.Must(http.MethodPatch, leasePath(), mergePatch, `{"spec":{"renewTime":"`+when+`"}}`)
	}
	crash(owner)
	for _, watch := range []*observer{late, early} {
		watch.untilFresh(two)
	}
}

// TestTokenRotated replaces the token in its file by another, and withdraws the first.
func TestTokenRotated(t *testing.T) {
	t.Parallel()
	server := startServer(t, kubetest.Config{})
	first, second := grant(t, server), serviceAccount(t, server, "second")
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(first.Token)
	cfg := Config{Kubeconfig: server.Kubeconfig(kubetest.User{TokenFile: file}, space)}
	tr := trouble(t, cfg, cfg)
	server.Must(http.MethodDelete, "/api/v1/namespaces/"+space+"/serviceaccounts/migrate", "", "")
	tr.logs.waitCause(t, lineWarned, "does not accept the credentials") // the server remembers a token for 10 s
	write(second.Token)
	began := time.Now()
	tr.logs.wait(t, lineHealed, 1)
	healed(t, "the owner is registered", began)
	put(t, tr.owner, two, "2", 0)
	tr.watch.untilFresh(one, two)
}

// TestCertificatesRotated lets a client's certificate expire and replaces it, and then the
// authority that signs the server's.
func TestCertificatesRotated(t *testing.T) {
	t.Parallel()
	server := startServer(t, kubetest.Config{})
	server.Must(http.MethodPost, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", "application/json",
		`{"metadata":{"name":"pod"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"},
		"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"pod"}]}`)
	cert, key := server.CA.IssueUntil("pod", time.Now().Add(5*time.Second))
	owner := Config{Kubeconfig: server.Kubeconfig(kubetest.User{CertFile: cert, KeyFile: key}, space)}
	owner.LeaseTTL = 10 * time.Second // it outlasts what follows
	tr := trouble(t, owner, admin(server))
	tr.logs.waitCause(t, lineWarned, "does not accept the credentials")
	server.CA.Issue("pod") // into the same files
	began := time.Now()
	tr.logs.wait(t, lineHealed, 1)
	healed(t, "the owner is registered", began)

	server.Kill()
	tr.watch.untilStale(one)
	tr.logs.wait(t, lineWarned, 2) // a server that is just starting keeps requests waiting, and none would fail
	server.CA.Renew()
	server.CA.Issue("127.0.0.1")
	server.Restart()
	tr.watch.untilFresh(one)
	tr.logs.wait(t, lineHealed, 2)
	put(t, tr.owner, two, "2", 0)
	tr.watch.untilFresh(one, two)
}

// TestLeavingWhileAway checks that neither Release nor Close waits for an API server that
// hangs, and that their errors say in one line what they leave behind.
func TestLeavingWhileAway(t *testing.T) {
	t.Parallel()
	server := startServer(t, kubetest.Config{})
	s := openStore(t, admin(server))
	lease := put(t, s, one, "1", 0)
	put(t, s, two, "2", 0)
	watch := observe(t, openStore(t, admin(server)))
	watch.untilFresh(one, two)
	server.Freeze()
	for _, leave := range []struct {
		what string
		do   func() error
	}{
		{"releasing " + one, func() error { return lease.Release(t.Context()) }},
		{"releasing the records in Kubernetes", s.Close},
	} {
		ended := make(chan error, 1)
		go func() { ended <- leave.do() }()
		select {
		case err := <-ended:
			t.Log(err)
			for _, text := range []string{leave.what, "expire", "no answer within"} {
				if err == nil || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n") {
					t.Errorf("the error is %q, want one line with %q", err, text)
				}
			}
		case <-time.After(patient):
			t.Fatalf("%s has not ended after %v", leave.what, patient)
		}
	}
	server.Thaw()
	watch.untilFresh()
}

// TestPutWhileAway checks that a Put fails with the cause, and that no watch begins.
func TestPutWhileAway(t *testing.T) {
	t.Parallel()
	server := startServer(t, kubetest.Config{})
	s := openStore(t, admin(server))
	s.patience = 500 * time.Millisecond
	server.Kill()
	_, err := s.Put(t.Context(), one, []byte("1"), 0)
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("Put returned %v", err)
	}
	for _, err := range s.Watch(t.Context(), prefix) {
		if err == nil {
			t.Error("a watch began without an API server")
		}
	}
	if _, err := Open(t.Context(), admin(server)); err == nil || !strings.Contains(err.Error(), server.URL()) {
		t.Errorf("Open returned %v", err)
	}
}
