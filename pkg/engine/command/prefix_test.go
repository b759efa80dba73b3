//go:build unix

package command_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/request-migration/migrate/pkg/engine/command"
	"github.com/request-migration/migrate/pkg/stream"
)

// annotated returns items with these values as data.
func annotated(values ...string) []stream.Annotated {
	items := make([]stream.Annotated, len(values))
	for i, v := range values {
		items[i].Data = []byte(v)
	}
	return items
}

// TestByPrefix shows what a program that goes on finds in its file.
func TestByPrefix(t *testing.T) {
	seen := filepath.Join(t.TempDir(), "seen")
	t.Setenv("TMPDIR", t.TempDir())
	for name, tt := range map[string]struct {
		items  command.Items
		prefix []stream.Annotated
		want   string // "": unresumable
	}{
		"none":            {command.Lines, nil, "unset"},
		"lines":           {command.Lines, annotated(`"a\n"`, `"é\"b\n"`), "a\né\"b\n"},
		"half a line":     {command.Lines, annotated(`"a\n"`, `"b"`), "a\nb"},
		"chunks":          {command.Chunks, annotated(`"a"`, `"b\nc"`), "ab\nc"},
		"another's text":  {command.Lines, annotated(`{"text":"a","tokens":3}`), "a"},
		"JSON":            {command.JSON, annotated(`{"a":1}`, `"b"`, `[]`), "{\"a\":1}\n\"b\"\n[]\n"},
		"no text":         {command.Lines, annotated(`"a\n"`, `{"a":1}`), ""},
		"a remark":        {command.Chunks, []stream.Annotated{{Data: []byte(`"a"`), Event: "head"}}, ""},
		"a remark, JSON":  {command.JSON, []stream.Annotated{{Data: []byte(`1`), Event: "head"}}, ""},
		"more than pipes": {command.Lines, annotated(`"` + strings.Repeat("x", 1<<19) + `"`), strings.Repeat("x", 1<<19)},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := sh(`if [ -n "${MIGRATE_PREFIX+set}" ]; then cat "$MIGRATE_PREFIX"; ls -ld "$MIGRATE_PREFIX" "$(dirname "$MIGRATE_PREFIX")" >&2; else printf unset; fi >` + seen)
			cfg.Items, cfg.ResumeBy = tt.items, command.ResumePrefix
			var log records
			cfg.Logger = newLogger(&log)
			e := newEngine(t, cfg)
			a := ask(t, e, stream.Request{Data: []byte(`""`), From: len(tt.prefix), Prefix: tt.prefix})
			if tt.want == "" {
				if !errors.Is(a.err, stream.ErrUnresumable) {
					t.Errorf("it ends with %v, want %v", a.err, stream.ErrUnresumable)
				}
				return
			}
			got, err := os.ReadFile(seen)
			if a.err != nil || err != nil || string(got) != tt.want {
				t.Errorf("it ends with %v; the program saw %.60q, %v; want %.60q", a.err, got, err, tt.want)
			}
			if len(tt.prefix) > 0 && (!strings.Contains(log.all(), "stderr=-rw-------") || !strings.Contains(log.all(), "stderr=drwx------")) {
				t.Errorf("others may read the file:\n%s", log.all())
			}
			if left := under(t, os.TempDir()); len(left) > 1 {
				t.Errorf("files are left: %q", left)
			}
			e.Close()
			if left := under(t, os.TempDir()); len(left) > 0 {
				t.Errorf("after Close files are left: %q", left)
			}
		})
	}
}

// under returns the names of all files in dir.
func under(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if path != dir {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestPrefixMissing has a request that says where to go on, without what was
// before.
func TestPrefixMissing(t *testing.T) {
	t.Parallel()
	cfg := sh("echo ran")
	cfg.ResumeBy = command.ResumePrefix
	e := newEngine(t, cfg)
	for _, req := range []stream.Request{{From: 2}, {From: 2, Prefix: annotated("1")}, {Prefix: annotated("1")}} {
		req.Data = []byte(`""`)
		if a := ask(t, e, req); !errors.Is(a.err, stream.ErrUnresumable) {
			t.Errorf("from %d with %d items it ends with %v, want %v", req.From, len(req.Prefix), a.err, stream.ErrUnresumable)
		}
	}
}

// TestPrefixCleanedUp has somebody clean up the directory of a server that has
// run for long.
func TestPrefixCleanedUp(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	cfg := sh(`cat "$MIGRATE_PREFIX"`)
	cfg.ResumeBy = command.ResumePrefix
	e := newEngine(t, cfg)
	for _, dir := range under(t, os.TempDir()) {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	a := ask(t, e, stream.Request{Data: []byte(`""`), From: 1, Prefix: annotated(`"x"`)})
	if a.err != nil || a.text() != "x" {
		t.Errorf("the answer is %q, %v", a.text(), a.err)
	}
}
