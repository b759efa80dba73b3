package kubernetes

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/kubernetes/kubetest"
)

// manifests are what a cluster needs, in the order in which kubectl would apply them.
func manifests() []string {
	return []string{"role.yaml", "servers.yaml", "request.yaml", "engine.yaml", "gateway.yaml"}
}

// documents returns the documents of a manifest.
func documents(tb testing.TB, name string) []string {
	tb.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "kubernetes", name))
	if err != nil {
		tb.Fatal(err)
	}
	return strings.Split(string(content), "\n---\n")
}

// collections are the paths where objects of a kind are made in a namespace.
func collections(namespace string) map[string]string {
	in := "/namespaces/" + namespace + "/"
	return map[string]string{
		"ServiceAccount": "/api/v1" + in + "serviceaccounts",
		"Service":        "/api/v1" + in + "services",
		"Role":           "/apis/rbac.authorization.k8s.io/v1" + in + "roles",
		"RoleBinding":    "/apis/rbac.authorization.k8s.io/v1" + in + "rolebindings",
		"Deployment":     "/apis/apps/v1" + in + "deployments",
		"Job":            "/apis/batch/v1" + in + "jobs",
		"Pod":            "/api/v1" + in + "pods",
	}
}

// kindOfManifest returns the kind of a document.
func kindOfManifest(document string) string {
	for line := range strings.Lines(document) {
		if kind, ok := strings.CutPrefix(line, "kind: "); ok {
			return strings.TrimSpace(kind)
		}
	}
	return ""
}

// apply makes the objects of a manifest, or only asks whether the server would.
func apply(tb testing.TB, s *kubetest.Server, namespace, manifest string, dryRun bool) {
	tb.Helper()
	for _, document := range documents(tb, manifest) {
		path := collections(namespace)[kindOfManifest(document)]
		if path == "" {
			tb.Fatalf("%s has a %q", manifest, kindOfManifest(document))
		}
		// Strict: a field that does not exist is an error.
		path += "?fieldValidation=Strict"
		if dryRun {
			path += "&dryRun=All"
		}
		s.Must(http.MethodPost, path, "application/yaml", document)
	}
}

// grant makes what role.yaml has, and returns the user that it is for.
func grant(tb testing.TB, s *kubetest.Server) kubetest.User {
	tb.Helper()
	apply(tb, s, space, "role.yaml", false)
	return kubetest.User{Token: token(tb, s, "migrate")}
}

// serviceAccount makes another account with the rights of role.yaml.
func serviceAccount(tb testing.TB, s *kubetest.Server, name string) kubetest.User {
	tb.Helper()
	s.Must(http.MethodPost, collections(space)["ServiceAccount"], "application/json", `{"metadata":{"name":"`+name+`"}}`)
	s.Must(http.MethodPost, collections(space)["RoleBinding"], "application/json", `{"metadata":{"name":"`+name+`"},
		"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"migrate"},
		"subjects":[{"kind":"ServiceAccount","name":"`+name+`","namespace":"`+space+`"}]}`)
	return kubetest.User{Token: token(tb, s, name)}
}

// token returns a token of a service account.
func token(tb testing.TB, s *kubetest.Server, account string) string {
	tb.Helper()
	answer := s.Must(http.MethodPost, collections(space)["ServiceAccount"]+"/"+account+"/token", "application/json",
		`{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{"expirationSeconds":3600}}`)
	var request struct{ Status struct{ Token string } }
	if err := json.Unmarshal(answer, &request); err != nil || request.Status.Token == "" {
		tb.Fatalf("asking for a token: %v: %s", err, answer)
	}
	return request.Status.Token
}

// withoutVersion returns an object as it would be made anew.
func withoutVersion(tb testing.TB, object []byte) string {
	tb.Helper()
	var o map[string]any
	if err := json.Unmarshal(object, &o); err != nil {
		tb.Fatal(err)
	}
	metadata, _ := o["metadata"].(map[string]any)
	delete(metadata, "resourceVersion")
	delete(metadata, "uid")
	text, err := json.Marshal(o)
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

// TestManifests lets the API server check every object of docs/kubernetes, and admit the
// Pods by the strictest of its standards.
func TestManifests(t *testing.T) {
	t.Parallel()
	server := startServer(t, kubetest.Config{})
	server.Must(http.MethodPatch, "/api/v1/namespaces/"+space, mergePatch,
		`{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"restricted"}}}`)
	files, err := filepath.Glob("../../../docs/kubernetes/*.yaml")
	if err != nil || len(files) != len(manifests()) {
		t.Fatalf("docs/kubernetes has %v, %v", files, err)
	}
	apply(t, server, space, "role.yaml", false)
	for _, manifest := range manifests()[1:] {
		apply(t, server, space, manifest, true)
		// What a controller would make of it is a Pod, which admission looks at.
		for _, document := range documents(t, manifest) {
			if kindOfManifest(document) == "Service" {
				continue
			}
			_, template, ok := strings.Cut(document, "\n  template:\n")
			if !ok {
				t.Fatalf("%s has no template", manifest)
			}
			pod := "apiVersion: v1\nkind: Pod\n" + strings.ReplaceAll("\n"+template, "\n    ", "\n")
			pod = strings.Replace(pod, "metadata:\n", "metadata:\n  name: checked\n", 1)
			server.Must(http.MethodPost, collections(space)["Pod"]+"?dryRun=All&fieldValidation=Strict", "application/yaml", pod)
		}
	}
}

// TestRoleSuffices does everything that a store does with the rights of role.yaml, and
// finds that it has no others.
func TestRoleSuffices(t *testing.T) {
	t.Parallel()
	server := startServer(t, kubetest.Config{})
	logs, logger := capture()
	s := openStore(t, Config{Kubeconfig: server.Kubeconfig(grant(t, server), space), Logger: logger})
	if s.Namespace() != space {
		t.Errorf("the namespace is %q", s.Namespace())
	}
	lease := put(t, s, one, "1", 0)
	brief := put(t, s, two, "2", patient)
	watch := observe(t, s)
	watch.untilFresh(one, two)
	if _, err := s.Expiry(t.Context(), two); err != nil {
		t.Error(err)
	}
	if _, err := s.sweep(t.Context()); err != nil {
		t.Error(err)
	}
	for _, l := range []discovery.Lease{lease, brief} {
		if err := l.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}
	watch.untilFresh()
	if w := logs.warnings(); len(w) != 0 {
		t.Errorf("warnings: %q", w)
	}
	other := server.Kubeconfig(kubetest.User{Token: token(t, server, "migrate")}, "default")
	elsewhere := openStore(t, Config{Kubeconfig: other})
	if _, err := elsewhere.Put(t.Context(), one, []byte("1"), 0); err == nil {
		t.Error("the role allows to write in another namespace")
	}
}
