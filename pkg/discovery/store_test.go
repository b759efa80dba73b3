package discovery_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/request-migration/migrate/pkg/discovery"
)

func TestSnapshotUnder(t *testing.T) {
	var all discovery.Snapshot
	for _, key := range []string{"v1/a", "v1/a/", "v1/a/b", "v1/a/c/d", "v1/a0", "v1/b/a", "v1/é/a"} {
		all.Records = append(all.Records, discovery.Record{Key: key, Value: []byte("x")})
	}
	all.Stale = errors.New("away")
	for _, prefix := range []string{"", "v1/", "v1/a/", "v1/a/c/", "v1/b/", "v1/c/", "v1/é/", "a/", "z/"} {
		want := slices.DeleteFunc(slices.Clone(all.Records), func(r discovery.Record) bool { return !strings.HasPrefix(r.Key, prefix) })
		got := all.Under(prefix)
		if !got.Equal(discovery.Snapshot{Records: want, Stale: all.Stale}) {
			t.Errorf("under %q: %v, want %v", prefix, got, want)
		}
		// Appending to a part must not write into the whole.
		_ = append(got.Records, discovery.Record{Key: "spoilt"})
	}
	if slices.ContainsFunc(all.Records, func(r discovery.Record) bool { return r.Key == "spoilt" }) {
		t.Error("a part shares its capacity with the whole")
	}
}

func TestSnapshotEqual(t *testing.T) {
	set := func(stale error, records ...string) discovery.Snapshot {
		s := discovery.Snapshot{Stale: stale}
		for _, r := range records {
			key, value, _ := strings.Cut(r, "=")
			s.Records = append(s.Records, discovery.Record{Key: key, Value: []byte(value)})
		}
		return s
	}
	away := errors.New("away")
	sets := []discovery.Snapshot{
		set(nil), set(away), set(errors.New("gone")), set(nil, "a=1"), set(nil, "a=2"), set(nil, "b=1"), set(away, "a=1"), set(nil, "a=1", "b=1"),
	}
	for i, s := range sets {
		for j, other := range sets {
			if s.Equal(other) != (i == j) {
				t.Errorf("Equal(%v, %v) is %v", s, other, i != j)
			}
		}
	}
	if !set(away, "a=1").Equal(set(errors.New("away"), "a=1")) {
		t.Error("the same reason is not the same")
	}
}
