package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// growthWindow is how long figures at rest are taken: twice the 3 s in which an
// owner touches its file or renews its lease.
const growthWindow = 6 * time.Second

// manyAtOnce is how many records are put at a time where it is their number that
// matters.
const manyAtOnce = 32

// rest waits.
func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func atRest() []lawFamily {
	lost := func(what string) law {
		return law{what: what, metric: "lost", within: atMostHere(0), worst: true}
	}
	const cpu = "CPU of a core"
	return []lawFamily{
		{
			name: "file at rest", sizes: []int{100, 300, 1000}, start: resting(onFile, 0),
			laws: []law{
				{what: "N servers in the file store at rest, nobody watching, CPU in cores", metric: cpu, within: atMostHere(0.2), growth: linear()},
				lost("records missing of those"),
			},
		},
		{
			name: "file at rest, watched", sizes: []int{100, 300, 1000}, start: resting(onFile, 20),
			laws: []law{
				{what: "N servers in the file store at rest, 20 clients watching, CPU in cores", metric: cpu, growth: linear()},
				lost("records missing of those, as the clients see it"),
			},
		},
		{
			name: "etcd at rest", sizes: []int{100, 300, 1000}, start: resting(onEtcd, 0),
			laws: []law{
				{what: "N servers on etcd at rest, CPU in cores, etcd's included", metric: cpu, growth: linear()},
				lost("records missing of those"),
			},
		},
	}
}

// resting starts servers that have a store each, and so many clients.
func resting(kind string, clients int) func(context.Context, *bench) (*subject, error) {
	return func(ctx context.Context, b *bench) (*subject, error) {
		p, err := b.newPlace(ctx, kind)
		if err != nil {
			return nil, err
		}
		var members [3]*child
		for i := range members {
			if members[i], err = p.member(ctx, "servers", p.at); err != nil {
				return nil, errors.Join(err, p.close())
			}
		}
		// The clients first: the system lets a user watch 128 directories.
		watcher, owner, lister := members[0], members[1], members[2]
		if _, err := watcher.do(order{Do: "watch", N: b.count(clients, min(clients, 1))}); err != nil {
			return nil, errors.Join(err, p.close())
		}
		run := func(n int) (figures, error) {
			if _, err := owner.do(order{Do: "register", N: n, For: time.Minute, Grow: grow{Each: true, AtOnce: manyAtOnce}}); err != nil {
				return nil, err
			}
			before, err := p.usage()
			if err != nil {
				return nil, err
			}
			span := b.span(growthWindow)
			if err := rest(ctx, span); err != nil {
				return nil, err
			}
			after, err := p.usage()
			if err != nil {
				return nil, err
			}
			asked, ask := watcher, "seen"
			if clients == 0 {
				asked, ask = lister, "list"
			}
			r, err := asked.do(order{Do: ask})
			return figures{
				"CPU of a core": (after - before).Seconds() / span.Seconds(),
				"lost":          float64(n) - r.Figures["instances"],
			}, err
		}
		return &subject{run, p.close}, nil
	}
}

func changing() []lawFamily {
	var families []lawFamily
	for _, kind := range []string{onFile, onEtcd} {
		families = append(families, lawFamily{
			name: "changes on " + kind, sizes: []int{100, 1000, 5000, 20_000}, start: changingOn(kind),
			laws: []law{
				{what: "first snapshot of N instances, " + kind, metric: "list", unit: "ms", growth: linear()},
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
		p, err := b.newPlace(ctx, kind)
		if err != nil {
			return nil, err
		}
		var members [3]*child
		for i := range members {
			if members[i], err = p.member(ctx, "servers", p.at); err != nil {
				return nil, errors.Join(err, p.close())
			}
		}
		watcher, owner, lister := members[0], members[1], members[2]
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
			if got := int(listed.Figures["instances"]); got != n {
				return nil, fmt.Errorf("a client lists %d instances, want %d", got, n)
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
		p, err := b.newPlace(ctx, kind)
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

func idling() []lawFamily {
	return []lawFamily{{
		name: "idle client", sizes: []int{100, 10_000}, start: idlingOnEtcd,
		laws: []law{
			{what: "an idle client on etcd, N instances, bytes/s on the wire", metric: "bytes/s", unit: "B/s", within: atMostHere(200), growth: flat()},
			{what: "lists that it asks for meanwhile", metric: "lists", within: atMostHere(0), worst: true},
		},
	}}
}

// idlingOnEtcd starts a client that reaches etcd by way of a relay.
func idlingOnEtcd(ctx context.Context, b *bench) (*subject, error) {
	p, err := b.newPlace(ctx, onEtcd)
	if err != nil {
		return nil, err
	}
	relay, err := newRelay(ctx, strings.TrimPrefix(p.at, "http://"))
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	end := func() error {
		err := p.close()
		relay.close()
		return err
	}
	owner, err := p.member(ctx, "servers", p.at)
	if err != nil {
		return nil, errors.Join(err, end())
	}
	watcher, err := p.member(ctx, "servers", "http://"+relay.l.Addr().String())
	if err != nil {
		return nil, errors.Join(err, end())
	}
	if _, err := watcher.do(order{Do: "watch", N: 1}); err != nil {
		return nil, errors.Join(err, end())
	}
	run := func(n int) (figures, error) {
		if _, err := owner.do(order{Do: "register", N: n, For: time.Minute, Grow: grow{AtOnce: manyAtOnce}}); err != nil {
			return nil, err
		}
		if _, err := watcher.do(order{Do: "see", N: n}); err != nil {
			return nil, err
		}
		// What the last changes still cause is over by then.
		if err := rest(ctx, b.span(time.Second)); err != nil {
			return nil, err
		}
		bytes := relay.bytes.Load()
		lists, err := p.lists(ctx)
		if err != nil {
			return nil, err
		}
		// Longer than a client takes silence for.
		span := b.span(10 * time.Second)
		if err := rest(ctx, span); err != nil {
			return nil, err
		}
		listsNow, err := p.lists(ctx)
		return figures{
			"bytes/s": float64(relay.bytes.Load()-bytes) / span.Seconds(),
			"lists":   listsNow - lists,
		}, err
	}
	return &subject{run, end}, nil
}
