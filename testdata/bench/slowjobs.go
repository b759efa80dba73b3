package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// openingAtOnce is how many streams are being opened at a time when many are to
// be held. All ten thousand at once would measure the crowd.
const openingAtOnce = 64

// paced measures the delay of items that are far apart, which carry the time
// they were sent.
func (k *asking) paced(ctx context.Context, j job) (figures, error) {
	begin := time.Now()
	delays := make([][]time.Duration, j.Streams)
	err := together(j.Streams, func(i int) error {
		mine := make([]time.Duration, 0, j.Items)
		var wrong error
		err := k.caller.stream(ctx, ask{items: j.Items, mode: paced, period: j.Period}, func(_ int, it item) {
			sent, err := stampOf(it.Text())
			wrong = errors.Join(wrong, err)
			mine = append(mine, time.Since(sent))
		})
		delays[i] = mine
		if err == nil && len(mine) != j.Items {
			err = fmt.Errorf("%d items came, want %d", len(mine), j.Items)
		}
		return errors.Join(err, wrong)
	})
	all := slices.Concat(delays...)
	if err != nil || len(all) == 0 {
		return nil, errors.Join(errors.New("reading paced items"), err)
	}
	n := float64(len(all))
	return figures{
		"items":     n,
		"items/ms":  n / float64(j.Streams) / time.Since(begin).Seconds() / 1000,
		"delay p50": micros(median(all)),
	}, nil
}

// hold opens streams that stay open after it has returned, until letGo.
func (k *asking) hold(ctx context.Context, j job) error {
	held, release := context.WithCancel(context.Background())
	k.release = release
	opening := make(chan struct{}, openingAtOnce)
	failed := make(chan error, j.Streams)
	var open sync.WaitGroup
	for range j.Streams {
		select {
		case opening <- struct{}{}:
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
		open.Add(1)
		k.held.Go(func() {
			opened := sync.OnceFunc(func() { <-opening; open.Done() })
			defer opened()
			a := ask{items: 1, mode: hold}
			if j.Period > 0 {
				a = ask{items: math.MaxInt32, mode: paced, period: j.Period}
			}
			err := k.caller.stream(held, a, func(int, item) { opened() })
			if held.Err() == nil {
				failed <- fmt.Errorf("a stream did not stay open: %w", err)
			}
		})
	}
	open.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// letGo ends the streams that are held.
func (k *asking) letGo() {
	if k.release != nil {
		k.release()
	}
	k.held.Wait()
}

// breaks makes requests that break after their first item, and returns when the
// next item of each came, if it was from another server.
func (k *asking) breaks(ctx context.Context, j job) (map[int]int64, error) {
	next := make(map[int]int64, j.Items)
	for trial := range j.Items {
		if err := k.warm(ctx); err != nil {
			return nil, err
		}
		var came time.Time
		servers := make([]string, 0, 2)
		err := k.caller.stream(ctx, ask{items: 2, mode: breaks, trial: trial}, func(_ int, i item) {
			came = time.Now()
			servers = append(servers, i.Text())
		})
		switch {
		case err != nil:
			return nil, fmt.Errorf("going on after a break: %w", err)
		case len(servers) != 2:
			return nil, fmt.Errorf("the items of a request that broke are %q, want two", servers)
		case servers[0] == servers[1]:
			continue // gRPC's client has sometimes connected to it again before it looks elsewhere
		}
		next[trial] = came.UnixNano()
	}
	if len(next) < j.Items/2 {
		return nil, fmt.Errorf("of %d requests that broke %d went on at another server", j.Items, len(next))
	}
	return next, nil
}

// warm asks until every server has answered, so that each has a connection.
func (k *asking) warm(ctx context.Context) error {
	seen := make(map[string]bool)
	for deadline := time.Now().Add(10 * time.Second); len(seen) < len(k.addrs); {
		if time.Now().After(deadline) {
			return fmt.Errorf("%d servers answer, want %d", len(seen), len(k.addrs))
		}
		err := k.caller.stream(ctx, ask{items: 1, mode: plain}, func(_ int, i item) { seen[i.Text()] = true })
		if err != nil {
			return fmt.Errorf("asking all servers before a break: %w", err)
		}
		time.Sleep(time.Millisecond) // a server that was down comes back
	}
	return nil
}
