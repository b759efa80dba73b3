package main

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
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
		for _, r := range f.rows {
			switch {
			case f.has(r):
				want++
			case r.against != liteLLM && os.Getenv("MIGRATE_REQUIRE_OPTIONAL") != "":
				t.Errorf("%s is not installed: %s", r.against, r.what)
			}
		}
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
	table := tableOf(results)
	if len(table.rows) != want {
		t.Errorf("the table has %d rows, want %d", len(table.rows), want)
	}
	var text bytes.Buffer
	if err := table.writeText(&text); err != nil {
		t.Error(err)
	}
	for _, r := range results {
		for _, out := range []string{text.String(), table.markdown()} {
			if !strings.Contains(out, r.what) {
				t.Errorf("the output lacks %q", r.what)
			}
		}
	}
}

// TestEveryLawHasFigures measures all growth, at sizes that mean nothing.
func TestEveryLawHasFigures(t *testing.T) {
	b := &bench{stderr: t.Output(), reps: 1, scale: 0.005, growth: true}
	var err error
	if b.program, err = program(); err != nil {
		t.Fatal(err)
	}
	results, err := b.allLaws(t.Context(), regexp.MustCompile(""))
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, f := range lawFamilies() {
		want += len(f.laws)
	}
	if len(results) != want {
		t.Errorf("%d laws, want %d", len(results), want)
	}
	for _, r := range results {
		for i, s := range r.at {
			if math.IsNaN(s.mid) {
				t.Errorf("%s: no figure at %d", r.what, r.sizes[i])
			}
		}
		if !strings.Contains(lawTable(results).markdown(), r.what) {
			t.Errorf("the table lacks %q", r.what)
		}
	}
}

func TestExponent(t *testing.T) {
	at := func(power float64) (by [][]figures) {
		for _, n := range []float64{10, 100, 1000} {
			by = append(by, []figures{{"m": 3 * math.Pow(n, power)}, {"m": 1e9}, {"m": 0}})
		}
		return by
	}
	for _, power := range []float64{0, 1, 2} {
		r := lawResultOf(law{metric: "m", growth: linear()}, []int{10, 100, 1000}, at(power))
		if got := r.exponent(); math.Abs(got-power) > 1e-9 {
			t.Errorf("exponent is %v, want %v", got, power)
		}
		if got, want := r.cells()[3], "≤ 1.15, met"; (got == want) != (power <= 1) {
			t.Errorf("the law is %q for an exponent of %v", got, power)
		}
	}
	none := lawResultOf(law{metric: "m", within: atMostHere(0)}, []int{10, 100}, [][]figures{{{"m": 0}}, {{"m": 0}}})
	if got := strings.Join(none.cells()[2:], "|"); got != "–|–|≤ 0, met" {
		t.Errorf("cells are %q where there is nothing", got)
	}
}

// TestPageKeepsTheOther writes each part of the page, which must not harm the other.
func TestPageKeepsTheOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	write := func(growth bool, score string) string {
		b := &bench{growth: growth}
		if err := b.writePage(path, table{header: []string{"what"}, score: score}, "bench"); err != nil {
			t.Fatal(err)
		}
		page, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(page)
	}
	write(false, "speed 1")
	write(true, "growth 1")
	write(false, "speed 2")
	page := write(true, "growth 2")
	if strings.Contains(page, "speed 1") || strings.Contains(page, "growth 1") || strings.Count(page, "speed 2") != 1 || strings.Count(page, "growth 2") != 1 {
		t.Errorf("after each part was written twice the page reads:\n%s", page)
	}
	if again := write(false, "speed 2"); again != page {
		t.Errorf("writing the same again changes the page:\n%s", again)
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
