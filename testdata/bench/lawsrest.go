package main

import (
	"context"
	"errors"
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
	return []lawFamily{
		{
			name: "file at rest", sizes: []int{100, 300, 1000}, start: resting(onFile, 0),
			laws: []law{
				{what: "N servers in the file store at rest, nobody watching, CPU in cores", metric: "CPU", within: atMostHere(0.2), growth: linear()},
				lost("records missing of those"),
			},
		},
		{
			name: "file at rest, watched", sizes: []int{100, 300, 1000}, start: resting(onFile, 20),
			laws: []law{
				{what: "N servers in the file store at rest, 20 clients watching, CPU in cores", metric: "CPU", growth: linear()},
				lost("records missing of those, as the clients see it"),
			},
		},
		{
			name: "etcd at rest", sizes: []int{100, 300, 1000}, start: resting(onEtcd, 0),
			laws: []law{
				{what: "N servers on etcd at rest, CPU in cores, etcd's included", metric: "CPU", growth: linear()},
				{what: "requests that they send, without keep-alives", metric: "requests/s", unit: "/s", growth: linear()},
				lost("records missing of those"),
			},
		},
	}
}

// resting starts servers that have a store each, and so many clients.
func resting(kind string, clients int) func(context.Context, *bench) (*subject, error) {
	return func(ctx context.Context, b *bench) (*subject, error) {
		p, err := b.newPlace(ctx, kind, 3)
		if err != nil {
			return nil, err
		}
		// The clients first: the system lets a user watch 128 directories.
		watcher, owner, lister := p.members[0], p.members[1], p.members[2]
		if _, err := watcher.do(order{Do: "watch", N: b.count(clients, min(clients, 1))}); err != nil {
			return nil, errors.Join(err, p.close())
		}
		run := func(n int) (figures, error) {
			if _, err := owner.do(order{Do: "register", N: n, For: time.Minute, Grow: grow{Each: true, AtOnce: manyAtOnce}}); err != nil {
				return nil, err
			}
			before, err := p.spent(ctx)
			if err != nil {
				return nil, err
			}
			span := b.span(growthWindow)
			if err := rest(ctx, span); err != nil {
				return nil, err
			}
			after, err := p.spent(ctx)
			if err != nil {
				return nil, err
			}
			asked, ask := watcher, "seen"
			if clients == 0 {
				asked, ask = lister, "list"
			}
			r, err := asked.do(order{Do: ask})
			return figures{
				"CPU":        (after.cpu - before.cpu).Seconds() / span.Seconds(),
				"requests/s": (after.requests - before.requests) / span.Seconds(),
				"lost":       float64(n) - r.Figures["instances"],
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
			{what: "lists that it asks for in 10 s", metric: "lists", within: atMostHere(0), worst: true},
		},
	}}
}

// idlingOnEtcd starts, for each repetition, a client that reaches etcd by way of a
// relay. Nobody writes from then on: all that it has seen, it has listed.
func idlingOnEtcd(ctx context.Context, b *bench) (*subject, error) {
	p, err := b.newPlace(ctx, onEtcd, 1)
	if err != nil {
		return nil, err
	}
	owner := p.members[0]
	run := func(n int) (f figures, err error) {
		if _, err := owner.do(order{Do: "register", N: n, For: time.Minute, Grow: grow{AtOnce: manyAtOnce}}); err != nil {
			return nil, err
		}
		relay, err := newRelay(ctx, strings.TrimPrefix(p.at, "http://"))
		if err != nil {
			return nil, err
		}
		defer relay.close()
		watcher, err := b.spawn(ctx, "member", onEtcd, endpointOf, "http://"+relay.l.Addr().String())
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, watcher.close()) }()
		for _, o := range []order{{Do: "watch", N: 1}, {Do: "see", N: n}} {
			if _, err := watcher.do(o); err != nil {
				return nil, err
			}
		}
		// What beginning still causes is over by then.
		if err := rest(ctx, b.span(time.Second)); err != nil {
			return nil, err
		}
		bytes := relay.bytes.Load()
		before, err := p.spent(ctx)
		if err != nil {
			return nil, err
		}
		// Longer than the silence in which a client looks for trouble.
		span := b.span(10 * time.Second)
		if err := rest(ctx, span); err != nil {
			return nil, err
		}
		bytes = relay.bytes.Load() - bytes
		after, err := p.spent(ctx)
		return figures{"bytes/s": float64(bytes) / span.Seconds(), "lists": after.lists - before.lists}, err
	}
	return &subject{run, p.close}, nil
}
