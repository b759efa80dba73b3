package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
)

func failing() []lawFamily {
	return []lawFamily{{
		name: "failing", sizes: []int{100, 1000, 5000},
		start: func(ctx context.Context, _ *bench) (*subject, error) {
			return &subject{func(n int) (figures, error) { return failOneByOne(ctx, n) }, func() error { return nil }}, nil
		},
		laws: []law{
			{what: "N instances failing one by one in a router, until all are down", metric: "took", unit: "ms", within: atMostHere(300), growth: nearLinear()},
			{what: "memory that it allocates, MB", metric: "MB", within: atMostHere(100), growth: nearLinear()},
		},
	}}
}

func failOneByOne(ctx context.Context, n int) (figures, error) {
	r, err := routerOver(ctx, n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	cause := errors.New("broken on purpose")
	before, begin := allocated(), time.Now()
	for i := range n {
		if !r.ReportDown(discovery.InstanceID(i+1), cause) {
			return nil, fmt.Errorf("instance %d is not there, or down already", i+1)
		}
	}
	for len(r.Tiers().Avail) > 0 {
		if err := rest(ctx, time.Millisecond); err != nil {
			return nil, fmt.Errorf("waiting for all to be down: %d are not: %w", len(r.Tiers().Avail), err)
		}
	}
	return figures{"took": millis(time.Since(begin)), "MB": megabytes(allocated() - before)}, nil
}

func reporting() []lawFamily {
	return []lawFamily{{
		name: "a report", sizes: []int{1, 10, 100}, start: reportingOnEtcd,
		laws: []law{
			{what: "requests to etcd for a report, N clients following, its maker's included", metric: "requests", growth: flat()},
			{what: "100 reports, 16 at a time, until every client has them", metric: "took", unit: "ms"},
		},
	}}
}

// reportingOnEtcd reports 100 instances down in each repetition.
func reportingOnEtcd(ctx context.Context, b *bench) (*subject, error) {
	p, err := b.newPlace(ctx, onEtcd, 2)
	if err != nil {
		return nil, err
	}
	owner, watcher := p.members[0], p.members[1]
	more, made := b.count(100, 2), 0
	run := func(n int) (figures, error) {
		made += more
		if _, err := owner.do(order{Do: "register", N: made, Grow: grow{AtOnce: manyAtOnce}}); err != nil {
			return nil, err
		}
		for _, o := range []order{{Do: "watch", N: n}, {Do: "see", N: made}, {Do: "see reports", N: made - more}} {
			if _, err := watcher.do(o); err != nil {
				return nil, err
			}
		}
		before, err := p.spent(ctx)
		if err != nil {
			return nil, err
		}
		begin := time.Now()
		if _, err := owner.do(order{Do: "report", N: made}); err != nil {
			return nil, err
		}
		if _, err := watcher.do(order{Do: "see reports", N: made}); err != nil {
			return nil, err
		}
		took := time.Since(begin)
		after, err := p.spent(ctx)
		return figures{"requests": (after.requests - before.requests) / float64(more), "took": millis(took)}, err
	}
	return &subject{run, p.close}, nil
}

// reportedInstances is how many instances there are whether or not they are
// reported down.
const reportedInstances = 1000

func reported() []lawFamily {
	var families []lawFamily
	for _, kind := range []string{onFile, onEtcd} {
		families = append(families, lawFamily{
			name: "reports on " + kind, sizes: []int{100, 1000}, start: reportedOn(kind),
			laws: []law{
				{what: "a one-shot migrate request with N standing reports, more than with one, " + kind, metric: "more", unit: "ms", within: atMostHere(50)},
				{what: "the same where reports stand for longer than the request's own bound, whose age it has to ask for", metric: "more, longer", unit: "ms"},
				{what: "the request with one report", metric: "one", unit: "ms"},
			},
		})
	}
	return families
}

// reportedOn starts two stores with the same instances, and puts one report into
// the first, so that what reports cost at all is there, and many into the second.
func reportedOn(kind string) func(context.Context, *bench) (*subject, error) {
	return func(ctx context.Context, b *bench) (*subject, error) {
		program, err := b.build(ctx, "migrate", "../..")
		if err != nil {
			return nil, err
		}
		var places []*place
		end := func() error {
			return together(len(places), func(i int) error { return places[i].close() })
		}
		for range 2 {
			p, err := b.newPlace(ctx, kind, 1)
			if err != nil {
				return nil, errors.Join(err, end())
			}
			places = append(places, p)
			o := order{Do: "register", N: b.count(reportedInstances, 2) + 1, Grow: grow{AtOnce: manyAtOnce}}
			if _, err := p.members[0].do(o); err != nil {
				return nil, errors.Join(err, end())
			}
		}
		run := func(n int) (figures, error) {
			for i, reports := range []int{1, n} {
				if _, err := places[i].members[0].do(order{Do: "report", N: reports}); err != nil {
					return nil, err
				}
			}
			cooldowns := []time.Duration{reportTime, router.DefaultCooldown}
			took := make(map[time.Duration][2][]float64)
			for range b.count(9, 1) {
				for _, cooldown := range cooldowns {
					at := took[cooldown]
					for i, p := range places {
						t, err := oneShot(ctx, program, p, cooldown)
						if err != nil {
							return nil, err
						}
						at[i] = append(at[i], millis(t))
					}
					took[cooldown] = at
				}
			}
			more := func(cooldown time.Duration) float64 {
				return median(took[cooldown][1]) - median(took[cooldown][0])
			}
			return figures{
				"one":          median(took[reportTime][0]),
				"more":         more(reportTime),
				"more, longer": more(router.DefaultCooldown),
			}, nil
		}
		return &subject{run, end}, nil
	}
}

// oneShot makes a request by the command, which heeds reports for cooldown at
// most, and times all of it.
func oneShot(ctx context.Context, program string, p *place, cooldown time.Duration) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, program, "request", "hello", "--endpoint", "growth/"+endpointOf+"/generate",
		"--store-kv", p.kind, "--file-kv", p.at, "--etcd-endpoints", p.at, "--output", "raw",
		"--cooldown", cooldown.String())
	var said strings.Builder
	cmd.Stderr = &said
	begin := time.Now()
	out, err := cmd.Output()
	took := time.Since(begin)
	if err != nil || strings.TrimSpace(string(out)) != "hello" {
		return 0, fmt.Errorf("migrate request answers %q: %w\n%s", out, err, said.String())
	}
	return took, nil
}
