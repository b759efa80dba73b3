package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"time"
)

// row is one line of the table.
type row struct {
	what     string
	metric   string // among the figures of the family's runs
	unit     string
	of       string // the side whose row it is; "" for ours
	against  string // the side that it is compared with; "" for none
	beyond   string // a side whose figure is taken off both others; "" for none
	absolute bool   // the bounds are for our figure, not for the ratio
	bounds   *bounds
}

// family is rows that the same runs measure.
type family struct {
	name  string
	sides []string
	// warmups is how many runs come before those that count.
	warmups int
	start   func(ctx context.Context, b *bench, side string) (*runner, error)
	rows    []row
}

// has reports whether the side that a row is compared with is there.
func (f family) has(r row) bool { return r.against == "" || slices.Contains(f.sides, r.against) }

// runner is one side of a family, ready to be measured.
type runner struct {
	run   func() (figures, error) // one repetition
	close func() error
}

// families returns all that can be measured.
func families() []family {
	return []family{
		oneStream(), hundredStreams(), shortRequests(), freshRequests(), firstItem(),
		pacedItems(), allocations(), idleStreams(), idleInstances(), failover(), choosing(), commands(),
		gatewayPaced(), gatewayFast(), gatewayOneStream(), gatewayHundredStreams(), gatewayFirstChunk(), gatewayMemory(), gatewayBreak(),
	}
}

// bench is one run of the comparison. It is for one goroutine.
type bench struct {
	program  string // what children are started from
	stderr   io.Writer
	scratch  string // a folder of this run's own
	growth   bool   // the laws of growth, not the comparison
	profiles string // the folder for the children's CPU profiles; "" for none
	reps     int
	scale    float64
	family   string // being measured
}

// count scales a number of things, to no less than least.
func (b *bench) count(n, least int) int { return max(int(float64(n)*b.scale), least) }

// span scales a time, to no less than a few milliseconds.
func (b *bench) span(d time.Duration) time.Duration {
	return max(time.Duration(float64(d)*b.scale), 20*time.Millisecond)
}

// all measures the rows that match only, as "family: row".
func (b *bench) all(ctx context.Context, only *regexp.Regexp) (results []result, err error) {
	end, err := b.makeScratch()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	for _, f := range families() {
		var rows []row
		for _, r := range f.rows {
			switch {
			case !only.MatchString(f.name + ": " + r.what):
			case !f.has(r):
				_, _ = fmt.Fprintf(b.stderr, "%s: %s is not installed: its rows are left out\n", f.name, r.against) // nothing is lost without it
			default:
				rows = append(rows, r)
			}
		}
		if len(rows) == 0 {
			continue
		}
		by, err := b.measure(ctx, f)
		if err != nil {
			return nil, fmt.Errorf("measuring %s: %w", f.name, err)
		}
		for _, r := range rows {
			results = append(results, resultOf(r, by))
		}
	}
	return results, nil
}

// measure runs a family's sides in turn, so that what disturbs the machine
// disturbs them alike. Each repetition begins with another side.
func (b *bench) measure(ctx context.Context, f family) (by map[string][]figures, err error) {
	b.family = f.name
	runners := make(map[string]*runner, len(f.sides))
	defer func() {
		for _, r := range runners {
			err = errors.Join(err, r.close())
		}
	}()
	for _, side := range f.sides {
		r, err := f.start(ctx, b, side)
		if err != nil {
			return nil, fmt.Errorf("starting %s: %w", side, err)
		}
		runners[side] = r
	}
	by = make(map[string][]figures, len(f.sides))
	for rep := range f.warmups + b.reps {
		began := time.Now()
		for i := range f.sides {
			side := f.sides[(i+rep)%len(f.sides)]
			got, err := runners[side].run()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", side, errors.Join(context.Cause(ctx), err))
			}
			if rep >= f.warmups {
				by[side] = append(by[side], got)
			}
		}
		_, _ = fmt.Fprintf(b.stderr, "%s: run %d of %d in %v\n",
			f.name, rep+1, f.warmups+b.reps, time.Since(began).Round(time.Millisecond)) // nothing is lost without it
	}
	return by, nil
}
