package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

func changing() []lawFamily {
	var families []lawFamily
	for _, kind := range []string{onFile, onEtcd} {
		families = append(families, lawFamily{
			name: "changes on " + kind, sizes: []int{100, 1000, 5000, 20_000}, start: changingOn(kind),
			laws: []law{
				{what: "first snapshot of N instances, " + kind, metric: "list", unit: "ms", growth: linear()},
				{what: "records missing of those", metric: "lost", within: atMostHere(0), worst: true},
				{what: "200 changes/s among N instances, at a client, CPU in cores, " + kind, metric: "CPU", within: atMostHere(0.2), growth: linear()},
				{what: "memory that it allocates, MB/s", metric: "MB/s", growth: linear()},
				{what: "changes/s that the store took", metric: "changes/s"},
			},
		})
	}
	return families
}

// changeRate is how many changes there are a second: a large deployment that is
// being rolled.
const changeRate = 200

func changingOn(kind string) func(context.Context, *bench) (*subject, error) {
	return func(ctx context.Context, b *bench) (*subject, error) {
		p, err := b.newPlace(ctx, kind, 3)
		if err != nil {
			return nil, err
		}
		watcher, owner, lister := p.members[0], p.members[1], p.members[2]
		if _, err := watcher.do(order{Do: "watch", N: 1}); err != nil {
			return nil, errors.Join(err, p.close())
		}
		run := func(n int) (figures, error) {
			if _, err := owner.do(order{Do: "register", N: n, For: time.Minute, Grow: grow{AtOnce: manyAtOnce}}); err != nil {
				return nil, err
			}
			if _, err := watcher.do(order{Do: "see", N: n}); err != nil {
				return nil, err
			}
			listed, err := lister.do(order{Do: "list"})
			if err != nil {
				return nil, err
			}
			before, err := watcher.do(order{Do: "usage"})
			if err != nil {
				return nil, err
			}
			span := b.span(growthWindow / 2)
			changed, err := owner.do(order{Do: "change", For: span, Grow: grow{AtOnce: 4, Rate: changeRate}})
			if err != nil {
				return nil, err
			}
			after, err := watcher.do(order{Do: "usage"})
			return figures{
				"list":      listed.Figures["list"],
				"lost":      float64(n) - listed.Figures["instances"],
				"changes/s": changed.Figures["changes/s"],
				"CPU":       (after.CPU - before.CPU).Seconds() / span.Seconds(),
				"MB/s":      megabytes(after.Allocated-before.Allocated) / span.Seconds(),
			}, err
		}
		return &subject{run, p.close}, nil
	}
}

func megabytes(bytes uint64) float64 { return float64(bytes) / 1e6 }

func joining() []lawFamily {
	var families []lawFamily
	for _, kind := range []string{onFile, onEtcd} {
		families = append(families, lawFamily{
			name: "joins on " + kind, sizes: []int{100, 1000, 5000}, start: joiningOn(kind),
			laws: []law{
				{what: "N joins, one after the other, until a client has seen all, " + kind, metric: "took", unit: "ms"},
				{what: "CPU that it costs the client", metric: "CPU", unit: "ms"},
				{what: "memory that it allocates, MB", metric: "MB"},
			},
		})
	}
	return families
}

func joiningOn(kind string) func(context.Context, *bench) (*subject, error) {
	return func(ctx context.Context, b *bench) (*subject, error) {
		p, err := b.newPlace(ctx, kind, 0)
		if err != nil {
			return nil, err
		}
		runs := 0
		run := func(n int) (f figures, err error) {
			// Each run has an endpoint and processes of its own.
			runs++
			endpoint := fmt.Sprintf("joins%d", runs)
			watcher, err := b.spawn(ctx, "member", kind, endpoint, p.at)
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, watcher.close()) }()
			owner, err := b.spawn(ctx, "member", kind, endpoint, p.at)
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, owner.close()) }()
			for _, o := range []order{{Do: "watch", N: 1}, {Do: "see"}} {
				if _, err := watcher.do(o); err != nil {
					return nil, err
				}
			}
			before, err := watcher.do(order{Do: "usage"})
			if err != nil {
				return nil, err
			}
			begin := time.Now()
			if _, err := owner.do(order{Do: "register", N: n, For: time.Minute}); err != nil {
				return nil, err
			}
			if _, err := watcher.do(order{Do: "see", N: n}); err != nil {
				return nil, err
			}
			took := time.Since(begin)
			after, err := watcher.do(order{Do: "usage"})
			return figures{
				"took": millis(took),
				"CPU":  millis(after.CPU - before.CPU),
				"MB":   megabytes(after.Allocated - before.Allocated),
			}, err
		}
		return &subject{run, p.close}, nil
	}
}
