package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// flatLaws are those of what does not grow.
func flatLaws() []lawFamily {
	return []lawFamily{picks(), streamsAtOnce(), streamsOnOne(), connections(), longAnswer(), manyRequests()}
}

func picks() lawFamily {
	f := lawFamily{name: "pick", sizes: []int{10, 100, 1000, 10_000, 100_000}}
	for _, name := range pickerNames() {
		f.laws = append(f.laws, law{what: "choosing an instance of N, " + name, metric: name, unit: "ns", growth: flat()})
	}
	f.start = func(ctx context.Context, b *bench) (*subject, error) {
		run := func(n int) (figures, error) {
			r, err := routerOver(ctx, n)
			if err != nil {
				return nil, err
			}
			defer r.Close()
			took := make(figures)
			for _, name := range pickerNames() {
				picker := newPicker(name)
				choices := b.count(1_000_000, 1000)
				choose(picker, r, choices/10) // so that all is warm
				took[name], _ = choose(picker, r, choices)
			}
			return took, nil
		}
		return &subject{run, func() error { return nil }}, nil
	}
	return f
}

func streamsAtOnce() lawFamily {
	return manyStreams("streams", []int{1, 10, 100, 1000, 10_000}, 0, "N streams at once, 128 a connection, time an item")
}

func streamsOnOne() lawFamily {
	return manyStreams("streams on one connection", []int{1, 10, 100, 1000}, 1000, "N streams on one connection, time an item")
}

func connections() lawFamily {
	return manyStreams("connections", []int{1, 10, 100, 1000}, 1, "N connections, a stream on each, time an item")
}

// manyStreams measures items of N streams at once, so many of them a connection; 0
// is as many as a client puts there by itself.
func manyStreams(name string, sizes []int, perConn int, what string) lawFamily {
	return lawFamily{
		name: name, sizes: sizes,
		start: func(ctx context.Context, b *bench) (*subject, error) {
			p, err := b.startPair(ctx, ours, 1, 1)
			if err != nil {
				return nil, err
			}
			warm := 0
			run := func(n int) (figures, error) {
				// Of each stream enough that opening it does not count.
				j := job{Kind: jobItems, Streams: n, Items: max(b.count(2_000_000, 1000)/n, b.count(500, 1)), PerConn: perConn}
				if warm != n {
					// The connections stand from now on.
					opening := j
					opening.Items = b.count(100, 1)
					if _, _, err := p.job(opening); err != nil {
						return nil, err
					}
					warm = n
				}
				f, _, err := p.job(j)
				return figures{"item": 1e9 / f["items/s"], "CPU": 1000 * f["CPU an item"]}, err
			}
			return &subject{run, p.close}, nil
		},
		laws: []law{
			{what: what, metric: "item", unit: "ns", growth: flat()},
			{what: "CPU an item, client + server", metric: "CPU", unit: "ns", growth: flat()},
		},
	}
}

// withPair measures each repetition on a server and a client of its own, which
// have made one short request before.
func withPair(run func(b *bench, p *pair, n int) (figures, error)) func(context.Context, *bench) (*subject, error) {
	return func(ctx context.Context, b *bench) (*subject, error) {
		one := func(n int) (f figures, err error) {
			p, err := b.startPair(ctx, ours, 1, 1)
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, p.close()) }()
			if _, _, err := p.job(job{Kind: jobRequests, Streams: callersAtOnce, Items: callersAtOnce}); err != nil {
				return nil, err
			}
			return run(b, p, n)
		}
		return &subject{one, func() error { return nil }}, nil
	}
}

func longAnswer() lawFamily {
	return lawFamily{
		name: "one long answer", sizes: []int{10_000, 100_000, 1_000_000, 10_000_000},
		start: withPair(func(_ *bench, p *pair, n int) (figures, error) {
			f, _, err := p.job(job{Kind: jobItems, Streams: 1, Items: n})
			if err != nil {
				return nil, err
			}
			memory := make(figures)
			err = p.memory(memory, 1, 1)
			return figures{
				"item":   1e9 / f["items/s"],
				"client": memory["client "+peak] / 1e6,
				"server": memory["server "+peak] / 1e6,
			}, err
		}),
		laws: []law{
			{what: "one answer of N items, time an item", metric: "item", unit: "ns", growth: flat()},
			{what: "the most memory that the client held", metric: "client", unit: "MB", growth: flat()},
			{what: "the most memory that the server held", metric: "server", unit: "MB", growth: flat()},
		},
	}
}

// callersAtOnce is how many callers share the requests.
const callersAtOnce = 16

func manyRequests() lawFamily {
	return lawFamily{
		name: "many requests", sizes: []int{10_000, 100_000, 1_000_000},
		start: withPair(func(_ *bench, p *pair, n int) (figures, error) {
			before, after := make(figures), make(figures)
			if err := p.memory(before, 1, 1); err != nil {
				return nil, err
			}
			f, _, err := p.job(job{Kind: jobRequests, Streams: callersAtOnce, Items: n, For: time.Minute})
			if err != nil {
				return nil, err
			}
			if err := p.memory(after, 1, 1); err != nil {
				return nil, err
			}
			more := func(what string) float64 {
				return after["client "+what] + after["server "+what] - before["client "+what] - before["server "+what]
			}
			return figures{
				"request":    1e6 / f["requests/s"],
				"memory":     more(resident) / 1e6,
				"goroutines": more(goroutines),
			}, nil
		}),
		laws: []law{
			{what: fmt.Sprintf("N short requests, %d at once, time a request", callersAtOnce), metric: "request", unit: "µs", growth: flat()},
			{what: "memory of client + server at the end, more than at the start", metric: "memory", unit: "MB", within: atMostHere(4)},
			{what: "goroutines of client + server at the end, more than at the start", metric: "goroutines", within: atMostHere(0), worst: true},
		},
	}
}
