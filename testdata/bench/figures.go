package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// figures is what one run measured, by metric.
type figures map[string]float64

// median returns the middle of s, which is not empty; of an even number, the
// mean of the two.
func median[T ~int64 | ~float64](s []T) T {
	s = slices.Sorted(slices.Values(s))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// spread is what the repetitions of a measurement come to.
type spread struct{ mid, low, high float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{math.NaN(), math.NaN(), math.NaN()}
	}
	return spread{median(values), slices.Min(values), slices.Max(values)}
}

// text prints the median, and the extremes in brackets.
func (s spread) text(unit string) string {
	if math.IsNaN(s.mid) {
		return "–"
	}
	return fmt.Sprintf("%s (%s–%s)", short(s.mid, unit), short(s.low, ""), short(s.high, ""))
}

// short prints three significant digits, with k and M for thousands and millions.
func short(v float64, unit string) string {
	switch a := math.Abs(v); {
	case a >= 1e6:
		v, unit = v/1e6, " M"+unit
	case a >= 1e4:
		v, unit = v/1e3, " k"+unit
	case unit != "" && unit[0] != '/':
		unit = " " + unit
	}
	digits := 0
	switch a := math.Abs(v); {
	case a < 1:
		digits = 3
	case a < 10:
		digits = 2
	case a < 100:
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + unit
}

// bounds is what a row is to reach.
type bounds struct {
	reach, then float64
	more        bool // more is better
}

func atLeast(reach, then float64) *bounds { return &bounds{reach, then, true} }
func atMost(reach, then float64) *bounds  { return &bounds{reach, then, false} }

// met reports whether v keeps to bound, at the precision that is printed: what
// one item costs is never told from what opening its stream did.
func (b *bounds) met(v, bound float64) bool {
	scale := math.Pow(10, 2-max(math.Floor(math.Log10(math.Abs(v))), -1))
	v = math.Round(v*scale) / scale
	if b.more {
		return v >= bound
	}
	return v <= bound
}

// result is a row with its figures.
type result struct {
	row
	ours, other, ratio spread
}

// resultOf works out a row from the figures of each side's repetitions, of which
// those with the same number ran one after the other.
func resultOf(r row, by map[string][]figures) result {
	values := func(side string) (v []float64) {
		for i, f := range by[side] {
			x, ok := f[r.metric]
			if r.beyond != "" {
				x -= by[r.beyond][i][r.metric]
			}
			if ok {
				v = append(v, x)
			}
		}
		return v
	}
	our, other := values(cmp.Or(r.of, ours)), values(r.against)
	res := result{row: r, ours: spreadOf(our), other: spreadOf(other), ratio: spreadOf(nil)}
	if len(other) == len(our) && len(our) > 0 {
		ratios := make([]float64, len(our))
		for i := range our {
			ratios[i] = our[i] / other[i]
		}
		res.ratio = spreadOf(ratios)
		res.ratio.mid = res.ours.mid / res.other.mid
	}
	return res
}

// judged is the figure that the row's bounds are for.
func (r result) judged() float64 {
	if r.absolute {
		return r.ours.mid
	}
	return r.ratio.mid
}
