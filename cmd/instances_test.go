//go:build unix

package cmd_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestInstances lists two servers in both forms, and asks for one by its id.
func TestInstances(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	empty, stderr := w.run(t, 0, nil, "migrate", "instances")
	if got := strings.Join(strings.Fields(empty), " "); !strings.HasPrefix(got, "ID NAME ADDRESS SOURCE AVAIL") ||
		stderr != "no instances of dynamo/backend/generate in the file store at "+w.kv+"\n" {
		t.Errorf("without servers it prints %q, and on standard error %q", empty, stderr)
	}
	none, _ := w.run(t, 0, nil, "migrate", "instances", "--output", "json")
	if strings.Contains(none, "null") {
		t.Errorf("without servers a list is null:\n%s", none)
	}
	w.serve(t, "server1")
	w.serve(t, "server2")
	w.serve(t, "other", "--endpoint", "an/other/one")

	list, err := listInstances(w.dir, w.env)
	if err != nil {
		t.Fatal(err)
	}
	if list.Endpoint != "dynamo/backend/generate" || len(list.Source) != 2 || !slices.Equal(list.Source, list.Avail) {
		t.Errorf("the list is %+v", list)
	}
	for i, instance := range list.Instances {
		if want := []string{"server1", "server2"}[i]; instance.Name != want || instance.Transport != "ndjson" || !instance.Source || !instance.Avail {
			t.Errorf("instance %d is %+v, want %s", i, instance, want)
		}
		if !slices.Contains(list.Source, instance.ID) || !regexp.MustCompile(`^[1-9a-f][0-9a-f]{0,13}$`).MatchString(instance.ID) {
			t.Errorf("the id is %q, the source %v", instance.ID, list.Source)
		}
		// Ids are random: any of them may be the first.
		stdout, _ := w.run(t, 0, nil, "migrate", "request", "hi", "--instance", instance.ID, "--count", "3", "--output", "json")
		all, err := parseEvents(stdout)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			if got, _ := r.receipt().field("served"); got != instance.Name+":0-2" {
				t.Errorf("a request for %s was served by %s", instance.ID, got)
			}
		}
	}
	table, _ := w.run(t, 0, nil, "migrate", "instances")
	rows := strings.Split(strings.TrimSpace(table), "\n")
	if len(rows) != 3 {
		t.Fatalf("the table is\n%s", table)
	}
	for i, row := range rows[1:] {
		in := list.Instances[i]
		if got := strings.Fields(row); !slices.Equal(got, []string{in.ID, in.Name, in.Address, "yes", "yes"}) {
			t.Errorf("row %d is %q, want %+v", i, row, in)
		}
	}
	// Other users of the machine can neither read nor change any of it.
	for path, want := range map[string]os.FileMode{
		w.kv:                                   0o700,
		filepath.Join(w.kv, "v1"):              0o700,
		filepath.Join(w.kv, "v1", "instances"): 0o700,
		filepath.Join(w.kv, "v1", "instances", w.recordOf(t, "server1")): 0o600,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("the mode of %s is %v, want %v", path, got, want)
		}
	}
}
