package instances

import (
	"fmt"
	"slices"
	"time"

	"github.com/request-migration/migrate/cmd/internal/term"
)

// frame returns what the live table shows in a window of that size.
func (v instancesView) frame(p palette, width, height int, now time.Time) []string {
	down := 0
	for _, r := range v.Rows {
		if r.Down != nil {
			down++
		}
	}
	top := []string{
		clip(fmt.Sprintf("%d in source, %d avail, %d down, of %s", len(v.Source), len(v.Avail), down, v.Endpoint), width), "",
	}
	bottom := []string{"", paint(p.faint, clip("q leaves", width))}
	if v.Stale != "" {
		bottom = []string{"", paint(p.soon, clip("stale: "+term.Plain(v.Stale), width)), bottom[1]}
	}
	// In a low window the rows come first.
	const low = 12
	lacks := func() bool { return height < low && height < len(top)+1+len(v.Rows)+len(bottom) }
	if lacks() {
		bottom = bottom[:len(bottom)-1]
	}
	if lacks() {
		top = nil
	}
	if lacks() {
		bottom = nil
	}
	room := max(height-len(top)-len(bottom)-1, 0)
	rows, more := v.Rows, 0
	if len(rows) > room {
		shown := max(room-1, 0) // and a line that says how many are not
		more = len(rows) - shown
		rows = needLooking(rows)[:shown]
	}
	lines := slices.Concat(top, newTable(rows, p, now).lines(width))
	if nobody := v.nobody(); nobody != "" {
		lines = append(lines, paint(p.faint, clip(term.Plain(nobody), width)))
	}
	if more > 0 {
		lines = append(lines, paint(p.faint, clip(fmt.Sprintf("… and %d more", more), width)))
	}
	return slices.Concat(lines, bottom)[:min(height, len(lines)+len(bottom))]
}

// needLooking returns rows with those first to which requests don't go, for a
// window that has no room for all.
func needLooking(rows []instanceRow) []instanceRow {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b instanceRow) int {
		switch {
		case a.Avail == b.Avail:
			return 0
		case b.Avail:
			return -1
		}
		return 1
	})
	return rows
}
