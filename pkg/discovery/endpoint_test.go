package discovery_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/request-migration/migrate/pkg/discovery"
)

func TestParseEndpoint(t *testing.T) {
	for s, want := range map[string]discovery.Endpoint{
		"dynamo/backend/generate":       {Namespace: "dynamo", Component: "backend", Name: "generate"},
		"dyn://dynamo.backend.generate": {Namespace: "dynamo", Component: "backend", Name: "generate"},
		"a.b/c/d":                       {Namespace: "a.b", Component: "c", Name: "d"},
		"dyn:/b/c":                      {Namespace: "dyn:", Component: "b", Name: "c"},
	} {
		e, err := discovery.ParseEndpoint(s)
		if err != nil || e != want || e.String() != want.Namespace+"/"+want.Component+"/"+want.Name {
			t.Errorf("%s: got %#v, %q, %v", s, e, e, err)
		}
	}
	for _, bad := range []string{
		"", "a", "a/b", "a/b/c/d", "a/b/", "/a/b", "a//b", "//", "a/b/.", "a/../c", "./b/c",
		"a/b/c d", "a/b/c\t", " a/b/c", "a\u00a0/b/c", "a/b/c\x00", "a/b/\u0085", "a/\xff/c",
		"dyn://", "dyn://a", "dyn://a.b", "dyn://a.b.c.d", "dyn://a..c", "dyn://a/b/c", "dyn://a.b.c/d", "dyn://a.b.c ",
	} {
		_, err := discovery.ParseEndpoint(bad)
		if err == nil {
			t.Errorf("%q is taken", bad)
			continue
		}
		for _, part := range []string{
			strconv.Quote(bad), "namespace/component/endpoint", "dynamo/backend/generate", "dyn://namespace.component.endpoint",
		} {
			if !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: %v, want one line with %s", bad, err, part)
			}
		}
	}
}

func TestInstanceID(t *testing.T) {
	for id, want := range map[discovery.InstanceID]string{0: "0", 10: "a", 1234: "4d2", 1<<53 + 1: "20000000000001", 1<<64 - 1: "ffffffffffffffff"} {
		if id.String() != want {
			t.Errorf("%d is %q, want %q", uint64(id), id, want)
		}
		if got, err := discovery.ParseInstanceID(want); err != nil || got != id {
			t.Errorf("ParseInstanceID(%q) = %d, %v", want, uint64(got), err)
		}
	}
	for _, bad := range []string{"", "4D2", "04d2", "0x4d2", "g", "-1", "+1", " 1", "1_0", "10000000000000000"} {
		if id, err := discovery.ParseInstanceID(bad); err == nil {
			t.Errorf("ParseInstanceID(%q) = %d", bad, uint64(id))
		}
	}
	seen := make(map[discovery.InstanceID]bool)
	for range 10_000 {
		id := discovery.NewInstanceID()
		if id == 0 || id >= 1<<53 || seen[id] {
			t.Fatalf("NewInstanceID() = %d", uint64(id))
		}
		seen[id] = true
	}
}
