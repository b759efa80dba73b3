package router_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestImports checks that a program which imports the packages for routing, streaming and
// discovery builds nothing of etcd's or Kubernetes' clients, nor anything else from
// outside, golang.org/x/sys excepted. A program that wants a store imports that one.
func TestImports(t *testing.T) {
	t.Parallel()
	const ours = "github.com/request-migration/migrate/pkg/"
	packages := []string{"discovery", "router", "router/receipt", "router/routertest", "server", "stream"}
	args := []string{"list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}"}
	for _, name := range packages {
		args = append(args, ours+name)
	}
	out, err := exec.CommandContext(t.Context(), "go", args...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := strings.Fields(string(out))
	for _, dep := range deps {
		if !strings.HasPrefix(dep, ours) && !strings.HasPrefix(dep, "golang.org/x/sys/") {
			t.Errorf("%s is built for %v", dep, packages)
		}
	}
	for _, name := range packages {
		if !slices.Contains(deps, ours+name) {
			t.Errorf("go list does not list %s", name)
		}
	}
	t.Log(deps)
}
