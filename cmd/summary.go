package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/request-migration/migrate/pkg/router/receipt"
	"github.com/request-migration/migrate/pkg/stream"
)

// summary adds up what came of many requests. It is safe for concurrent use;
// the memory it takes does not grow with their number.
type summary struct {
	took time.Duration // set once all is over

	mu        sync.Mutex // guards what follows
	requests  int
	outcomes  map[receipt.Outcome]int
	wrong     int
	items     int // received
	repeated  int
	attempts  int
	migrated  int // requests that completed after a break
	breaks    map[stream.Kind]int
	refusals  map[stream.Kind]int
	served    map[string]int // items of answers, by server
	firstItem *hdrhistogram.Histogram
	gap       *hdrhistogram.Histogram
	err       error // the first, but a wrong answer before all others
}

func newSummary() *summary {
	// Microseconds, up to ten minutes, to two digits: some tens of kilobytes.
	histogram := func() *hdrhistogram.Histogram {
		return hdrhistogram.New(1, (10 * time.Minute).Microseconds(), 2)
	}
	return &summary{
		outcomes: make(map[receipt.Outcome]int), breaks: make(map[stream.Kind]int), refusals: make(map[stream.Kind]int),
		served: make(map[string]int), firstItem: histogram(), gap: histogram(),
	}
}

// add adds one request.
func (s *summary) add(r loadResult) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	s.outcomes[receipt.OutcomeOf(r.err)]++
	switch {
	case errors.Is(r.err, errWrongAnswer):
		if s.wrong++; s.wrong == 1 {
			s.err = r.err // worse than any answer that could not be had
		}
	case s.err == nil:
		s.err = r.err
	}
	s.items += r.items
	s.repeated += r.receipt.Repeated
	s.attempts += len(r.receipt.Attempts)
	for _, a := range r.receipt.Attempts {
		if a.Kind != "" {
			s.breaks[a.Kind]++
		}
	}
	for _, a := range r.receipt.Refusals {
		s.refusals[a.Kind]++
	}
	if r.err == nil && r.receipt.Migrations() > 0 {
		s.migrated++
	}
	for _, part := range r.receipt.Served {
		s.served[cmp.Or(part.Name, part.Instance.String())] += part.To - part.From
	}
	if r.items > 0 {
		record(s.firstItem, r.firstItem)
	}
	for _, ms := range r.receipt.GapsMS {
		record(s.gap, time.Duration(ms*float64(time.Millisecond)))
	}
}

// record adds a duration; one beyond the histogram's end counts as its end.
func record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(d.Microseconds(), 1), h.HighestTrackableValue()))
}

// write prints the summary.
func (s *summary) write(ctx context.Context, w io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) // Flush has the error
	}
	seconds := max(s.took.Seconds(), 1e-9)
	row("requests", "%d in %v (%.0f/s): %s", s.requests, s.took.Round(time.Millisecond), float64(s.requests)/seconds, counts(s.outcomes))
	row("wrong answers", "%d", s.wrong)
	row("items", "%d (%.0f/s), %d of them repeated", s.items, float64(s.items)/seconds, s.repeated)
	row("attempts", "%d, %d requests migrated", s.attempts, s.migrated)
	row("breaks", "%s", cmp.Or(counts(s.breaks), "none"))
	row("refusals", "%s", cmp.Or(counts(s.refusals), "none"))
	row("served", "%s", cmp.Or(shares(s.served), "nothing"))
	row("first item", "%s", quantiles(s.firstItem))
	row("failover gap", "%s", quantiles(s.gap))
	if err := t.Flush(); err != nil {
		return fmt.Errorf("writing the summary: %w", err)
	}
	writeHistogram(&b, "first item", s.firstItem)
	writeHistogram(&b, "failover gap", s.gap)
	if err := write(ctx, w, []byte(b.String())); err != nil {
		return fmt.Errorf("writing the summary: %w", err)
	}
	return nil
}

// counts lists how often each kind came, the most frequent first.
func counts[K ~string](m map[K]int) string {
	keys := slices.SortedFunc(maps.Keys(m), func(a, b K) int {
		return cmp.Or(cmp.Compare(m[b], m[a]), cmp.Compare(a, b))
	})
	parts := make([]string, len(keys))
	for i, k := range keys {
		parts[i] = fmt.Sprintf("%d %s", m[k], k)
	}
	return strings.Join(parts, ", ")
}

// shares lists which part of all items each server has served.
func shares(served map[string]int) string {
	total := 0
	for _, n := range served {
		total += n
	}
	parts := make([]string, 0, len(served))
	for _, name := range slices.Sorted(maps.Keys(served)) {
		parts = append(parts, fmt.Sprintf("%s %.1f%%", plain(name), 100*float64(served[name])/float64(max(total, 1))))
	}
	return strings.Join(parts, ", ")
}

func quantiles(h *hdrhistogram.Histogram) string {
	if h.TotalCount() == 0 {
		return "none"
	}
	at := func(q float64) time.Duration { return time.Duration(h.ValueAtQuantile(q)) * time.Microsecond }
	return fmt.Sprintf("p50 %v, p90 %v, p99 %v, max %v", at(50), at(90), at(99), time.Duration(h.Max())*time.Microsecond)
}

// writeHistogram draws a histogram with a row for each doubling of the time.
func writeHistogram(b *strings.Builder, title string, h *hdrhistogram.Histogram) {
	const width = 40
	if h.TotalCount() == 0 {
		return
	}
	var rows []int64
	var first int
	for _, bar := range h.Distribution() {
		if bar.Count == 0 {
			continue
		}
		i := 0
		for v := bar.From; v > 1; v /= 2 {
			i++
		}
		if rows == nil {
			first = i
		}
		for len(rows) <= i-first {
			rows = append(rows, 0)
		}
		rows[i-first] += bar.Count
	}
	fmt.Fprintf(b, "\n%s\n", title)
	most := slices.Max(rows)
	for i, n := range rows {
		from := time.Duration(int64(1)<<(first+i)) * time.Microsecond
		bar := strings.Repeat("#", int((n*width+most-1)/most))
		fmt.Fprintf(b, "%10v  %-*s %d\n", from, width, bar, n)
	}
}
