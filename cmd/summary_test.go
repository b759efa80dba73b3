package cmd

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/router/receipt"
	"github.com/request-migration/migrate/pkg/stream"
)

func TestSummary(t *testing.T) {
	s := newSummary()
	s.took = 2 * time.Second
	for range 3 {
		s.add(loadResult{
			items: 5, firstItem: time.Millisecond,
			receipt: receipt.Receipt{
				Items:    5,
				Attempts: []receipt.Attempt{{Attempt: 1, Name: "b", To: 5}},
				Refusals: []receipt.Refusal{{Attempt: 1, Name: "a", Kind: stream.Overloaded}},
				Served:   []receipt.Served{{Name: "b", To: 5}},
			},
		})
	}
	s.add(loadResult{
		items: 7, firstItem: 5 * time.Millisecond,
		receipt: receipt.Receipt{
			Items: 5, Repeated: 2, GapsMS: []float64{1.5},
			Attempts: []receipt.Attempt{{Attempt: 1, Name: "a", To: 2, Kind: stream.Reset}, {Attempt: 2, Name: "b", To: 5}},
			Served:   []receipt.Served{{Name: "a", To: 2}, {Name: "b", From: 2, To: 5}},
		},
	})
	s.add(loadResult{err: router.ErrNoInstances})
	var b strings.Builder
	if err := s.write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	// The histograms keep two digits.
	const want = `requests       5 in 2s (2/s): 4 success, 1 no_instances
wrong answers  0
items          22 (11/s), 2 of them repeated
attempts       5, 1 requests migrated
breaks         1 reset
refusals       3 overloaded
served         a 10.0%, b 90.0%
first item     p50 1.003ms, p90 5.023ms, p99 5.023ms, max 5.023ms
failover gap   p50 1.503ms, p90 1.503ms, p99 1.503ms, max 1.503ms

first item
     512µs  ######################################## 3
   1.024ms                                           0
   2.048ms                                           0
   4.096ms  ##############                           1

failover gap
   1.024ms  ######################################## 1
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &b, want)
	}
}

// A wrong answer decides how the command ends, whatever else went wrong.
func TestSummaryError(t *testing.T) {
	wrong := fmt.Errorf("%w: one", errWrongAnswer)
	for _, errs := range [][]error{
		{wrong, router.ErrNoInstances},
		{router.ErrNoInstances, nil, wrong, fmt.Errorf("%w: two", errWrongAnswer)},
	} {
		s := newSummary()
		for _, err := range errs {
			s.add(loadResult{err: err})
		}
		if !errors.Is(s.err, wrong) || exitCode(s.err) != exitFailure {
			t.Errorf("%v: got %v", errs, s.err)
		}
	}
	s := newSummary()
	s.add(loadResult{})
	if s.err != nil {
		t.Errorf("no error: got %v", s.err)
	}
}
