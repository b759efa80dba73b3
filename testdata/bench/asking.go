package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// The kinds of job.
const (
	jobItems    = "items"    // so many streams at once, of so many items
	jobRequests = "requests" // so many callers, one short request after the other
	jobFirst    = "first"    // one request after the other, timed to the first item
	jobPaced    = "paced"    // so many streams at once, whose items come slowly
	jobHold     = "hold"     // so many streams that stay open: silent, or with an item a period
	jobRest     = "rest"     // nothing
	jobBreaks   = "breaks"   // one break after the other
)

// shortItems is how many items a short request has: the characters of "hello world".
const shortItems = 11

// job is what a client does for a measurement.
type job struct {
	Kind    string
	Streams int // at once
	Items   int // a stream; of jobFirst and jobBreaks, how many there are; of jobRequests, requests in all
	PerConn int // of jobItems: streams that share a connection; 0 is as the side has it
	Period  time.Duration
	For     time.Duration // of jobRequests, unless Items is set
	Fresh   bool          // a connection for each request
}

// asking is the worker that asks.
type asking struct {
	side   string
	addrs  []string
	caller caller
	own    *oursCaller // for jobs that set PerConn, all of which agree; nil until there is one

	held    sync.WaitGroup
	release context.CancelFunc // of the streams that jobHold opened; nil if none
}

func newAsking(side string, addrs []string) (*asking, error) {
	c, err := dialing(side, addrs)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	return &asking{side: side, addrs: addrs, caller: c}, nil
}

func (k *asking) do(ctx context.Context, o order) (r reply, err error) {
	switch o.Do {
	case "usage":
		r.CPU, err = usage()
	case "memory":
		r.Memory, err = memory()
	case "job":
		j := o.Job
		switch j.Kind {
		case jobItems:
			r.Figures, err = k.items(ctx, j)
		case jobRequests:
			r.Figures, err = k.requests(ctx, j)
		case jobFirst:
			r.Figures, err = k.first(ctx, j)
		case jobPaced:
			r.Figures, err = k.paced(ctx, j)
		case jobHold:
			err = k.hold(ctx, j)
		case jobRest:
			time.Sleep(j.For)
		case jobBreaks:
			r.Times, err = k.breaks(ctx, j)
		default:
			err = fmt.Errorf("no job is called %q", j.Kind)
		}
	default:
		err = fmt.Errorf("a client knows no order %q", o.Do)
	}
	return r, err
}

func (k *asking) close() {
	k.letGo()
	if k.own != nil {
		_ = k.own.close()
	}
	_ = k.caller.close() // the measurement is over
}

// together runs f n times at once and returns all errors.
func together(n int, f func(i int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// items measures items a second.
func (k *asking) items(ctx context.Context, j job) (figures, error) {
	c := k.caller
	if j.PerConn > 0 {
		if k.own == nil {
			k.own = newOursCaller(k.addrs[0])
			k.own.client.MaxStreams = j.PerConn
		}
		c = k.own
	}
	begin := time.Now()
	err := together(j.Streams, func(int) error {
		return read(ctx, c, ask{items: j.Items, mode: plain})
	})
	n := float64(j.Streams * j.Items)
	return figures{"items": n, "items/s": n / time.Since(begin).Seconds()}, err
}

// requests measures short requests a second.
func (k *asking) requests(ctx context.Context, j job) (figures, error) {
	begin := time.Now()
	counts := make([]int, j.Streams)
	goOn := func(done int) bool {
		if j.Items > 0 {
			return done < j.Items/j.Streams
		}
		return time.Since(begin) < j.For
	}
	err := together(j.Streams, func(i int) error {
		for ; goOn(counts[i]); counts[i]++ {
			if err := k.request(ctx, j.Fresh); err != nil {
				return err
			}
		}
		return nil
	})
	n := 0
	for _, c := range counts {
		n += c
	}
	return figures{"requests/s": float64(n) / time.Since(begin).Seconds()}, err
}

// request makes one short request.
func (k *asking) request(ctx context.Context, fresh bool) error {
	a := ask{items: shortItems, mode: plain}
	if !fresh {
		return read(ctx, k.caller, a)
	}
	c, err := dialing(k.side, k.addrs)
	if err != nil {
		return err
	}
	return errors.Join(read(ctx, c, a), c.close())
}

// first measures the time to the first item of one request after the other, beside
// streams that run.
func (k *asking) first(ctx context.Context, j job) (figures, error) {
	if j.Streams > 0 {
		if err := k.hold(ctx, j); err != nil {
			return nil, err
		}
		defer k.letGo()
	}
	took := make([]time.Duration, 0, j.Items)
	for range j.Items {
		begin, first := time.Now(), time.Duration(0)
		err := k.caller.stream(ctx, ask{items: shortItems, mode: plain}, func(int, item) {
			if first == 0 {
				first = time.Since(begin)
			}
		})
		if err != nil {
			return nil, err
		}
		took = append(took, first)
	}
	return figures{"first p50": micros(median(took))}, nil
}
