package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
)

// A table is figures for people, on a terminal or in a page.
type table struct {
	header []string
	rows   [][]string
	score  string // how many bounds are met
}

// tableOf is the comparison with the other sides.
func tableOf(results []result) table {
	t := table{
		header: []string{"what", "migrate", "the other side", "ratio", "reach", "then"},
		score:  score(results),
	}
	for _, r := range results {
		t.rows = append(t.rows, r.cells())
	}
	return t
}

func (r result) cells() []string {
	other := "–"
	if r.against != "" {
		other = r.against + ": " + r.other.text(r.unit)
	}
	ratio := "–"
	if !math.IsNaN(r.ratio.mid) {
		ratio = r.ratio.text("x")
	}
	reach, then := "–", "–"
	if r.bounds != nil {
		unit := "x"
		if r.absolute {
			unit = r.unit
		}
		reach = r.bounds.verdict(r.judged(), r.bounds.reach, unit)
		then = r.bounds.verdict(r.judged(), r.bounds.then, unit)
	}
	return []string{r.what, r.ours.text(r.unit), other, ratio, reach, then}
}

// verdict says what the bound is and whether v keeps to it.
func (b *bounds) verdict(v, bound float64, unit string) string {
	sign := "≤"
	if b.more {
		sign = "≥"
	}
	met := "missed"
	if b.met(v, bound) {
		met = "met"
	}
	return strings.TrimSpace(fmt.Sprintf("%s %g %s", sign, bound, unit)) + ", " + met
}

// score says how many bounds are met.
func score(results []result) string {
	all, reach, then := 0, 0, 0
	for _, r := range results {
		if r.bounds == nil {
			continue
		}
		all++
		if r.bounds.met(r.judged(), r.bounds.reach) {
			reach++
		}
		if r.bounds.met(r.judged(), r.bounds.then) {
			then++
		}
	}
	return fmt.Sprintf("Of %d rows with a bound, %d meet the one to reach, %d the one after it.", all, reach, then)
}

// writeText writes the table for a terminal.
func (t table) writeText(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	lines := []string{strings.Join(t.header, "\t")}
	for _, row := range t.rows {
		lines = append(lines, strings.Join(row, "\t"))
	}
	lines = append(lines, "", t.score, "")
	if _, err := io.WriteString(tw, strings.Join(lines, "\n")); err != nil {
		return err
	}
	return tw.Flush()
}

// markdown returns the table for a page.
func (t table) markdown() string {
	var text strings.Builder
	line := func(cells []string) { fmt.Fprintf(&text, "| %s |\n", strings.Join(cells, " | ")) }
	line(t.header)
	line(strings.Split(strings.Repeat("---,", len(t.header)-1)+"---", ","))
	for _, row := range t.rows {
		line(row)
	}
	return text.String()
}
