package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

func failover() family {
	return family{
		name: "failover", sides: []string{ours, theirs, raw}, warmups: 1, start: breaking,
		rows: []row{
			{what: "break to next item from another server, warm, p50, against the floor", metric: "gap p50", unit: "µs", against: raw, bounds: atMost(1.5, 1.2)},
			{what: "the same against grpc-go round_robin with the stream reopened by hand", metric: "gap p50", unit: "µs", against: theirs, bounds: atMost(0.4, 0.25)},
		},
	}
}

// breaking starts two servers, of which the one that takes a request closes its
// socket after the first item.
func breaking(ctx context.Context, b *bench, side string) (*runner, error) {
	p, err := b.startPair(ctx, side, 2, 1)
	if err != nil {
		return nil, err
	}
	return &runner{gapsOf(b, p), p.close}, nil
}

// gapsOf returns runs of one break after the other.
func gapsOf(b *bench, p *pair) func() (figures, error) {
	return func() (figures, error) {
		_, next, err := p.job(job{Kind: jobBreaks, Items: b.count(100, 3)})
		if err != nil {
			return nil, err
		}
		broke := make(map[int]int64)
		for _, s := range p.servers {
			r, err := s.do(order{Do: "breaks"})
			if err != nil {
				return nil, err
			}
			for trial, at := range r.Times {
				if broke[trial] != 0 {
					return nil, fmt.Errorf("trial %d broke twice", trial)
				}
				broke[trial] = at
			}
		}
		gaps := make([]time.Duration, 0, len(next.Times))
		for trial, at := range next.Times {
			gap := time.Duration(at - broke[trial])
			if broke[trial] == 0 || gap <= 0 {
				return nil, fmt.Errorf("trial %d: broke at %d, went on at %d", trial, broke[trial], at)
			}
			gaps = append(gaps, gap)
		}
		if len(gaps) == 0 {
			return nil, errors.New("nothing broke")
		}
		return figures{"gap p50": micros(median(gaps))}, nil
	}
}
