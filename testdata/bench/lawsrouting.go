package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
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
	cause := errors.New("broken on purpose")
	before, begin := allocated(), time.Now()
	for i := range n {
		if !r.ReportDown(discovery.InstanceID(i+1), cause) {
			return nil, fmt.Errorf("instance %d is not there, or down already", i+1)
		}
	}
	for len(r.Tiers().Avail) > 0 {
		if err := rest(ctx, time.Millisecond); err != nil {
			return nil, err
		}
	}
	return figures{"took": millis(time.Since(begin)), "MB": megabytes(allocated() - before)}, nil
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
				{what: "a one-shot migrate request with N standing reports, more than with none, " + kind, metric: "more", unit: "ms", within: atMostHere(50)},
				{what: "the same request with none", metric: "none", unit: "ms"},
			},
		})
	}
	return families
}

// reportedOn starts two stores with the same instances, and puts reports into
// the second.
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
		var owners []*child
		for range 2 {
			p, err := b.newPlace(ctx, kind)
			if err != nil {
				return nil, errors.Join(err, end())
			}
			places = append(places, p)
			owner, err := p.member(ctx, "servers", p.at)
			if err != nil {
				return nil, errors.Join(err, end())
			}
			owners = append(owners, owner)
			o := order{Do: "register", N: b.count(reportedInstances, 2) + 1, Grow: grow{AtOnce: manyAtOnce}}
			if _, err := owner.do(o); err != nil {
				return nil, errors.Join(err, end())
			}
		}
		run := func(n int) (figures, error) {
			if _, err := owners[1].do(order{Do: "report", N: n}); err != nil {
				return nil, err
			}
			var took [2][]float64
			for range b.count(9, 1) {
				for i, p := range places {
					t, err := oneShot(ctx, program, p)
					if err != nil {
						return nil, err
					}
					took[i] = append(took[i], millis(t))
				}
			}
			none := median(took[0])
			return figures{"none": none, "more": median(took[1]) - none}, nil
		}
		return &subject{run, end}, nil
	}
}

// oneShot makes a request by the command, and times all of it.
func oneShot(ctx context.Context, program string, p *place) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, program, "request", "hello", "--endpoint", "growth/servers/generate",
		"--store-kv", p.kind, "--file-kv", p.at, "--etcd-endpoints", p.at, "--output", "raw",
		// As long as the reports stand, so that the command heeds them all.
		"--cooldown", reportTime.String())
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
