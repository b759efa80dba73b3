package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
)

func allocations() family {
	return family{
		name: "allocations", sides: []string{ours, theirs}, warmups: 1, start: allocating,
		rows: []row{{what: "allocations an item, server + client, in-process", metric: "allocations", against: theirs, absolute: true, bounds: atMost(2, 1)}},
	}
}

// allocating runs server and client in this process, which does nothing else.
func allocating(ctx context.Context, b *bench, side string) (*runner, error) {
	s := &serving{side: side, b: newBackend("server1")}
	listening, err := s.do(ctx, order{Do: "listen", N: 1})
	if err != nil {
		return nil, err
	}
	c, err := dialing(side, listening.Addrs)
	if err != nil {
		s.close()
		return nil, err
	}
	items := b.count(200_000, 20_000)
	run := func() (figures, error) {
		// The first and the last tenth do not count: the stream opens there,
		// and the server is done before the client is.
		from, to := items/10, items-items/10
		n := 0
		var before, after uint64
		err := c.stream(ctx, ask{items: items, mode: plain}, func(int, item) {
			switch n++; n {
			case from:
				before = mallocs()
			case to:
				after = mallocs()
			}
		})
		if err == nil && n != items {
			err = fmt.Errorf("%d items came, want %d", n, items)
		}
		return figures{"allocations": float64(after-before) / float64(to-from)}, err
	}
	end := func() error {
		err := c.close()
		s.close()
		return err
	}
	return &runner{run, end}, nil
}

// mallocs returns how many objects this process has allocated so far.
func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

// sizes is how many instances there are to choose from.
func sizes() []int { return []int{10, 1000, 100_000} }

// leastLoaded is the picker that looks at two instances.
const leastLoaded = "least-loaded"

func pickerNames() []string { return []string{"random", "round-robin", leastLoaded} }

// newPicker returns the picker of one of these names.
func newPicker(name string) router.Picker {
	switch name {
	case "round-robin":
		return router.RoundRobin()
	case leastLoaded:
		return router.LeastLoaded()
	}
	return router.Random()
}

func choosing() family {
	f := family{name: "choosing", sides: []string{ours}, warmups: 1, start: startChoosing}
	for _, name := range pickerNames() {
		within := atMost(30, 15)
		if name == leastLoaded {
			within = atMost(60, 30)
		}
		for _, n := range sizes() {
			f.rows = append(f.rows, row{
				what:   fmt.Sprintf("choosing an instance of %s, %s", grouped(n), name),
				metric: metricOf(name, n), unit: "ns", absolute: true, bounds: within,
			})
		}
	}
	f.rows = append(f.rows, row{what: "choosing, allocations, the most of all these", metric: "allocations", absolute: true, bounds: atMost(0, 0)})
	return f
}

// grouped prints n with its thousands apart.
func grouped(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%s,%03d", grouped(n/1000), n%1000)
}

func metricOf(picker string, instances int) string { return fmt.Sprintf("%s %d", picker, instances) }

// startChoosing starts a router for each size. A choice is what it does for
// each attempt: it loads the tiers and has the picker pick.
func startChoosing(ctx context.Context, b *bench, _ string) (*runner, error) {
	routers := make(map[int]*router.Router)
	end := func() error {
		for _, r := range routers {
			r.Close()
		}
		return nil
	}
	for _, n := range sizes() {
		r, err := routerOver(ctx, n)
		if err != nil {
			return nil, errors.Join(err, end())
		}
		routers[n] = r
	}
	run := func() (figures, error) {
		f := make(figures)
		for _, name := range pickerNames() {
			picker := newPicker(name)
			for n, r := range routers {
				took, allocated := choose(picker, r, b.count(1_000_000, 1000))
				f[metricOf(name, n)] = took
				f["allocations"] = max(f["allocations"], allocated)
			}
		}
		return f, nil
	}
	return &runner{run, end}, nil
}

// routerOver returns a router that lists n instances. One that is reported down
// stays so.
func routerOver(ctx context.Context, n int) (*router.Router, error) {
	instances := make([]discovery.Instance, n)
	for i := range instances {
		instances[i] = discovery.Instance{
			ID: discovery.InstanceID(i + 1), Transport: discovery.NDJSON, Address: fmt.Sprintf("127.0.0.1:%d", i),
		}
	}
	r := router.New(router.Config{Source: discovery.Static(instances...), Client: router.StreamClient(&stream.Client{}), Cooldown: time.Hour})
	for deadline := time.Now().Add(callTimeout); len(r.Tiers().Avail) < n; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil || time.Now().After(deadline) {
			r.Close()
			return nil, errors.New("the router does not list its source")
		}
	}
	return r, nil
}

// choose makes choices and returns nanoseconds and allocations for each.
func choose(picker router.Picker, r *router.Router, choices int) (took, allocated float64) {
	before, begin := mallocs(), time.Now()
	var chosen *router.Peer
	for range choices {
		chosen = picker.Pick(router.Choice{}, r.Tiers().Avail)
	}
	spent := time.Since(begin)
	runtime.KeepAlive(chosen)
	return float64(spent) / float64(choices), float64(mallocs()-before) / float64(choices)
}
