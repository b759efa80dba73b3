package main

import (
	"bytes"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestMain makes the test binary its own server and client, as main does.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childWord {
		if err := run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

// TestEveryRowHasFigures runs everything, too short for the figures to mean
// anything.
func TestEveryRowHasFigures(t *testing.T) {
	b := &bench{stderr: t.Output(), reps: 1, scale: 0.005}
	var err error
	if b.program, err = program(); err != nil {
		t.Fatal(err)
	}
	results, err := b.all(t.Context(), regexp.MustCompile(""))
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, f := range families() {
		want += len(f.rows)
	}
	if len(results) != want {
		t.Errorf("%d rows, want %d", len(results), want)
	}
	for _, r := range results {
		if math.IsNaN(r.ours.mid) {
			t.Errorf("%s: no figure", r.what)
		}
		if r.against != "" && math.IsNaN(r.other.mid) {
			t.Errorf("%s: no figure of %s", r.what, r.against)
		}
	}
	var table, page bytes.Buffer
	if err := writeText(&table, results); err != nil {
		t.Error(err)
	}
	if err := b.writeMarkdown(&page, results, "bench"); err != nil {
		t.Error(err)
	}
	for _, r := range results {
		for _, out := range []string{table.String(), page.String()} {
			if !strings.Contains(out, r.what) {
				t.Errorf("the output lacks %q", r.what)
			}
		}
	}
}

func TestResult(t *testing.T) {
	r := resultOf(row{metric: "m", against: theirs, bounds: atLeast(5, 8)}, map[string][]figures{
		ours:   {{"m": 30}, {"m": 10}, {"m": 20}},
		theirs: {{"m": 5}, {"m": 4}, {"m": 2}},
	})
	if want := (spread{20, 10, 30}); r.ours != want {
		t.Errorf("ours is %v, want %v", r.ours, want)
	}
	if want := (spread{5, 2.5, 10}); r.ratio != want {
		t.Errorf("ratio is %v, want %v", r.ratio, want)
	}
	got := r.cells()[1:]
	want := []string{"20.0 (10.0–30.0)", "gRPC: 4.00 (2.00–5.00)", "5.00 x (2.50–10.0)", "≥ 5 x, met", "≥ 8 x, missed"}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("cells are %q, want %q", got, want)
	}
}

func TestAskComesBack(t *testing.T) {
	want := ask{items: 11, from: 2, mode: paced, period: 1000, trial: 7}
	got, err := parseAsk(want.String())
	if err != nil || got != want {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}
