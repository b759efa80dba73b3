package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
)

// law is one line of the table of growth: how a figure grows with a number.
type law struct {
	what   string
	metric string // among the figures of the family's runs
	unit   string
	within *bounds // of the figure at the largest size; nil for none
	growth *bounds // of the exponent; nil for none
	worst  bool    // the worst repetition is judged, not the median
}

// atMostHere is a bound of which there is only one.
func atMostHere(v float64) *bounds { return atMost(v, v) }

// The bounds of exponents. Each leaves room for noise: over the two decades or
// more that the sizes span, the next worse law is far beyond it.
func flat() *bounds       { return atMostHere(0.2) }
func linear() *bounds     { return atMostHere(1.15) }
func nearLinear() *bounds { return atMostHere(1.3) } // N log N

// lawFamily is laws that the same runs measure.
type lawFamily struct {
	name  string
	sizes []int // ascending
	start func(ctx context.Context, b *bench) (*subject, error)
	laws  []law
}

// subject is what a family's laws are measured on.
type subject struct {
	run   func(n int) (figures, error) // one repetition at a size, which never shrinks
	close func() error
}

// lawFamilies returns all that can be measured.
func lawFamilies() []lawFamily {
	return slices.Concat(atRest(), changing(), joining(), failing(), reporting(), reported(), idling(), flatLaws())
}

// lawResult is a law with its figures, by size.
type lawResult struct {
	law
	sizes []int
	at    []spread
}

// allLaws measures the laws that match only, as "family: law". A family that fails
// costs its own laws alone.
func (b *bench) allLaws(ctx context.Context, only *regexp.Regexp) (results []lawResult, err error) {
	end, err := b.makeScratch()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	var errs []error
	for _, f := range lawFamilies() {
		laws := slices.DeleteFunc(slices.Clone(f.laws), func(l law) bool { return !only.MatchString(f.name + ": " + l.what) })
		if len(laws) == 0 {
			continue
		}
		f.sizes = b.scaled(f.sizes)
		by, err := b.measureLaws(ctx, f)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("measuring %s: %w", f.name, err))
			continue
		}
		for _, l := range laws {
			results = append(results, lawResultOf(l, f.sizes, by))
		}
	}
	return results, errors.Join(errs...)
}

// scaled returns the sizes times the scale, which stay apart and above 0.
func (b *bench) scaled(sizes []int) []int {
	var s []int
	for i, n := range sizes {
		s = append(s, b.count(n, i+1))
	}
	return s
}

// measureLaws returns the figures of each size's repetitions.
func (b *bench) measureLaws(ctx context.Context, f lawFamily) (by [][]figures, err error) {
	b.family = f.name
	s, err := f.start(ctx, b)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, n := range f.sizes {
		began := time.Now()
		var at []figures
		for range b.reps {
			got, err := s.run(n)
			if err != nil {
				return nil, fmt.Errorf("at %s: %w", grouped(n), cmp.Or(context.Cause(ctx), err))
			}
			at = append(at, got)
		}
		by = append(by, at)
		_, _ = fmt.Fprintf(b.stderr, "%s: %s, %d runs in %v\n",
			f.name, grouped(n), b.reps, time.Since(began).Round(time.Millisecond)) // nothing is lost without it
	}
	return by, nil
}

func lawResultOf(l law, sizes []int, by [][]figures) lawResult {
	res := lawResult{law: l, sizes: sizes}
	for _, at := range by {
		var values []float64
		for _, f := range at {
			if v, ok := f[l.metric]; ok {
				values = append(values, v)
			}
		}
		res.at = append(res.at, spreadOf(values))
	}
	return res
}

// exponent is the slope of the line that fits the logarithms of the figures best
// against those of the sizes: 0 is flat, 1 linear, 2 quadratic. It is no number
// where a figure is not above 0.
func (r lawResult) exponent() float64 {
	n := float64(len(r.at))
	var sumX, sumY, sumXX, sumXY float64
	for i, s := range r.at {
		x, y := math.Log(float64(r.sizes[i])), math.Log(s.mid)
		sumX, sumY, sumXX, sumXY = sumX+x, sumY+y, sumXX+x*x, sumXY+x*y
	}
	e := (n*sumXY - sumX*sumY) / (n*sumXX - sumX*sumX)
	if math.IsInf(e, 0) {
		return math.NaN()
	}
	return math.Round(100*e)/100 + 0 // no -0
}

// judged is the figure that the bound is for, the one at the largest size.
func (r lawResult) judged() float64 {
	last := r.at[len(r.at)-1]
	if r.worst {
		return last.high
	}
	return last.mid
}

// lawTable is the table of growth.
func lawTable(results []lawResult) table {
	t := table{header: []string{"what", "at N: figure", "exponent", "law", "bound at the largest N"}}
	all, met := 0, 0
	count := func(b *bounds, v float64) {
		all++
		if b.met(v, b.reach) {
			met++
		}
	}
	for _, r := range results {
		t.rows = append(t.rows, r.cells())
		if e := r.exponent(); r.growth != nil && !math.IsNaN(e) {
			count(r.growth, e)
		}
		if r.within != nil {
			count(r.within, r.judged())
		}
	}
	t.score = fmt.Sprintf("%d of %d bounds are met.", met, all)
	return t
}

func (r lawResult) cells() []string {
	var at []string
	for i, s := range r.at {
		at = append(at, grouped(r.sizes[i])+": "+s.text(r.unit))
	}
	exponent, growth, within := "–", "–", "–"
	if e := r.exponent(); !math.IsNaN(e) {
		exponent = fmt.Sprintf("%.2f", e)
		if r.growth != nil {
			growth = r.growth.verdict(e, r.growth.reach, "")
		}
	}
	if r.within != nil {
		within = r.within.verdict(r.judged(), r.within.reach, r.unit)
	}
	return []string{r.what, strings.Join(at, "; "), exponent, growth, within}
}
