package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
)

// header and cells are the columns of both forms of the table.
func header() []string {
	return []string{"what", "migrate", "the other side", "ratio", "reach", "then"}
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
		reach, then = r.verdict(r.bounds.reach), r.verdict(r.bounds.then)
	}
	return []string{r.what, r.ours.text(r.unit), other, ratio, reach, then}
}

// verdict says what the bound is and whether it is met.
func (r result) verdict(bound float64) string {
	sign := "≤"
	if r.bounds.more {
		sign = "≥"
	}
	unit := "x"
	if r.absolute {
		unit = r.unit
	}
	met := "missed"
	if r.bounds.met(r.judged(), bound) {
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
func writeText(w io.Writer, results []result) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	lines := []string{strings.Join(header(), "\t")}
	for _, r := range results {
		lines = append(lines, strings.Join(r.cells(), "\t"))
	}
	lines = append(lines, "", score(results), "")
	if _, err := io.WriteString(tw, strings.Join(lines, "\n")); err != nil {
		return err
	}
	return tw.Flush()
}

// writeMarkdown writes the page that goes with the documentation.
func (b *bench) writeMarkdown(w io.Writer, results []result, command string) error {
	var t strings.Builder
	line := func(cells []string) { fmt.Fprintf(&t, "| %s |\n", strings.Join(cells, " | ")) }
	line(header())
	line(strings.Split(strings.Repeat("---,", len(header())-1)+"---", ","))
	for _, r := range results {
		line(r.cells())
	}
	_, err := fmt.Fprintf(w, page, command, machine(), b.reps, t.String(), score(results))
	return err
}

// page is what stands around the table.
const page = `# Benchmarks

The speed of migrate beside grpc-go's, and beside the limit of a bare TCP
connection. The page is written by

    make bench

which runs ` + "`%s`" + ` in testdata/bench.

Measured on: %s.

Each figure is the median of %d repetitions, with the lowest and the highest in
brackets. The ratio is ours over the other side's: of the medians, and in
brackets the extremes of repetitions that ran one after the other. The last two
columns are what the project has set itself to reach, and then to go on to.

%s
%s

## What is measured

- **gRPC** is grpc-go with default options: one client connection, server
  streaming, ` + "`wrapperspb.StringValue`" + ` both ways, plaintext.
- **raw TCP** is a server that writes the lines, made beforehand, in 64 KiB
  chunks, and a client that only counts newlines. It can tell no stream from
  another and no end from a break: it is what the connection itself allows. For
  the break, it is the floor: a client that waits on the socket that is closed,
  and then asks another server over a connection that stands.
- **migrate** is ` + "`pkg/stream`" + ` as it comes, and for the break ` + "`pkg/router`" + ` with Resume
  above it.

An item reads ` + "`from server: server1, data: h`" + `. A short request has 11 items. Paced
items carry the time they were sent in place of the last character. CPU is user
and system time of the client's process and the servers' together, from
getrusage. Memory is what the system counts as resident once garbage has been
collected and free memory returned, less the same with one connection and no
stream, for each stream. The break is timed from just before the server closes
its socket to the next item at the client, on the machine's one clock.

## How both sides are kept fair

- Server and client are processes of their own, connected over loopback; only
  allocations and choosing are measured inside one process. Every process has
  the same GOMAXPROCS and Go's default garbage collection.
- Both sides run the same handler and the same client code, but for the adapter
  of a few lines that calls the library. The request is the same text. Plain
  items are made once and sent again and again, on both sides; paced ones are
  made one by one, on both sides.
- The client counts the items of each answer and compares the last one's text. A
  wrong answer ends the run. gRPC hands over each item as a decoded string, ours
  as the JSON value of one, which was checked to be one; paced items are turned
  into strings on both sides.
- Nothing logs. Before what counts there are warm-up runs, but for the idle
  streams, each of whose repetitions has fresh processes.
- The sides take turns: a repetition runs each of them once, and each repetition
  begins with another one. Idle processes of the side whose turn it is not wait
  on their sockets.
- Idle streams share connections as the client of each side makes them share:
  all of them one connection with gRPC, 128 each with ours.
- After a break, gRPC's client goes on as a careful caller of round_robin would:
  it opens the stream again at once, at the item that is missing, until a server
  takes it.
`
