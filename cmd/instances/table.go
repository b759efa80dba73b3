package instances

import (
	"fmt"
	"time"

	"github.com/charmbracelet/lipgloss"

	"github.com/request-migration/migrate/cmd/internal/term"
	"github.com/request-migration/migrate/pkg/discovery"
)

// tableLines returns the table of v as lines of at most width columns, 0 being
// any number, and what has to be said of the whole below it.
func (v instancesView) tableLines(p palette, width int, now time.Time) []string {
	lines := newTable(v.Rows, p, now).lines(width)
	if v.Stale != "" {
		lines = append(lines, paint(p.soon, clip("stale: "+term.Plain(v.Stale), width)))
	}
	return lines
}

// newTable returns the table of rows. Columns that only some instances have
// something for are there if one of these does.
func newTable(rows []instanceRow, p palette, now time.Time) *table {
	t := &table{head: p.head, notes: make([]string, len(rows)), noteStyle: p.faint, rows: len(rows)}
	add := func(name string, cell func(r *instanceRow) (string, *lipgloss.Style)) *column {
		c := &column{name: name, cells: make([]string, len(rows)), styles: make([]*lipgloss.Style, len(rows))}
		for i := range rows {
			c.cells[i], c.styles[i] = cell(&rows[i])
		}
		t.columns = append(t.columns, c)
		return c
	}
	text := func(get func(r *instanceRow) string) func(*instanceRow) (string, *lipgloss.Style) {
		return func(r *instanceRow) (string, *lipgloss.Style) { return get(r), nil }
	}
	yesNo := func(get func(r *instanceRow) bool) func(*instanceRow) (string, *lipgloss.Style) {
		return func(r *instanceRow) (string, *lipgloss.Style) {
			if get(r) {
				return "yes", p.good
			}
			return "no", p.bad
		}
	}
	add("ID", text(func(r *instanceRow) string { return r.ID.String() }))
	add("NAME", text(func(r *instanceRow) string { return term.Plain(r.Name) }))
	add("ADDRESS", text(func(r *instanceRow) string { return term.Plain(r.Address) }))
	add("SOURCE", yesNo(func(r *instanceRow) bool { return r.Source }))
	add("AVAIL", yesNo(func(r *instanceRow) bool { return r.Avail }))
	add("PROBE", func(r *instanceRow) (string, *lipgloss.Style) {
		switch {
		case r.Probe == nil:
			return "", nil
		case r.Probe.Kind != "":
			return string(r.Probe.Kind), p.bad
		}
		return fmt.Sprintf("%.1fms", *r.Probe.MS), p.good
	}).optional = true

	report := func(style *lipgloss.Style, get func(d *reportRow) string) func(*instanceRow) (string, *lipgloss.Style) {
		return func(r *instanceRow) (string, *lipgloss.Style) {
			d := r.report()
			if d == nil {
				return "", nil
			}
			return get(d), style
		}
	}
	for _, c := range []*column{
		add("WHY", report(p.bad, func(d *reportRow) string { return term.Plain(d.Kind) })),
		add("AGO", report(nil, func(d *reportRow) string { return ago(now.Sub(d.Since)) })),
		add("BACK", report(p.soon, func(d *reportRow) string { return back(d.Until.Sub(now)) })),
		add("BY", report(nil, func(d *reportRow) string { return term.Plain(d.Reporter) })),
		add("REASON", report(nil, func(d *reportRow) string { return term.Plain(d.Reason) })),
	} {
		c.optional, c.tail = true, true
	}
	for i, r := range rows {
		if r.Source && r.report() == nil {
			t.notes[i] = r.note()
		}
	}
	return t
}

// note says why requests are not sent to an instance that nobody has reported;
// "" if they are.
func (r *instanceRow) note() string {
	switch {
	case r.Transport != discovery.NDJSON:
		return "transport " + term.Plain(r.Transport) + ": listed, not routed to"
	case r.Wire > discovery.WireVersion:
		return fmt.Sprintf("wire %d, newer than this migrate's %d: listed, not routed to", r.Wire, discovery.WireVersion)
	}
	return ""
}

// ago shows a time that has passed.
func ago(d time.Duration) string { return short(max(d, 0).Truncate(time.Second)) }

// back shows a time that has yet to pass, rounded up: it counts down to the
// moment itself, and only then says now.
func back(d time.Duration) string {
	if d <= 0 {
		return "now"
	}
	return "in " + short((d + time.Second - 1).Truncate(time.Second))
}

// short shows whole seconds in four characters or so.
func short(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}
