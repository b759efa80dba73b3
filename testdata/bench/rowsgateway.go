package main

import (
	"context"
	"errors"
	"time"
)

// route is a client that reaches engines by way of a proxy.
type route struct {
	*pair
	proxy *proxy
}

// startRoute starts so many engines, what a side has before them, and a client.
func (b *bench) startRoute(ctx context.Context, side string, engines int) (r *route, err error) {
	p, addrs, err := b.startServers(ctx, openAI, engines, 1)
	if err != nil {
		return nil, err
	}
	r = &route{pair: p}
	if r.proxy, err = b.startProxy(ctx, side, addrs); err != nil {
		return nil, errors.Join(err, p.close())
	}
	// As many addresses as there are engines: so many are to answer.
	reached := make([]string, engines)
	for i := range reached {
		reached[i] = r.proxy.addr
	}
	if p.client, err = b.spawn(ctx, "client", openAI, side, reached...); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *route) close() error { return errors.Join(r.pair.close(), r.proxy.close()) }

// job is that of a pair, and measures "CPU a chunk": that of the proxy alone.
func (r *route) job(j job) (figures, reply, error) {
	before, err := r.proxy.usage()
	if err != nil {
		return nil, reply{}, err
	}
	f, rep, err := r.pair.job(j)
	if err != nil {
		return nil, reply{}, err
	}
	after, err := r.proxy.usage()
	if n := f["items"]; n > 0 {
		f["CPU a chunk"] = (after - before) / n
	}
	return f, rep, err
}

// routes returns the start of a family whose sides do one job, by way of a proxy.
func routes(job func(b *bench, side string) job) func(context.Context, *bench, string) (*runner, error) {
	return func(ctx context.Context, b *bench, side string) (*runner, error) {
		r, err := b.startRoute(ctx, side, 1)
		if err != nil {
			return nil, err
		}
		run := func() (figures, error) {
			f, _, err := r.job(job(b, side))
			return f, err
		}
		return &runner{run, r.close}, nil
	}
}

// pacedChunks are so many streams, of a chunk a period.
func pacedChunks(streams int, period time.Duration) func(b *bench, side string) job {
	return func(b *bench, side string) job {
		span := b.span(4 * runTime)
		if side == liteLLM {
			span /= 8 // it takes longer than intended
		}
		return job{Kind: jobPaced, Streams: streams, Items: int(span / period), Period: period, For: span}
	}
}

func gatewayPaced() family {
	return family{
		name: "gateway, paced", sides: installed(ours, serveBetween, nginx, reverseProxy, liteLLM, direct), warmups: 1,
		start: routes(pacedChunks(50, 10*time.Millisecond)),
		rows: []row{
			{what: "CPU a chunk of the gateway, 50 streams at 10 ms a chunk, against nginx", metric: "CPU a chunk", unit: "µs", against: nginx, bounds: atMost(2.5, 1.5)},
			{what: "the same against Go's ReverseProxy", metric: "CPU a chunk", unit: "µs", against: reverseProxy},
			{what: "the same against LiteLLM's proxy", metric: "CPU a chunk", unit: "µs", against: liteLLM, bounds: atMost(0.05, 0.03)},
			{what: "with a store and `serve --openai` between, both processes, against nginx", of: serveBetween, metric: "CPU a chunk", unit: "µs", against: nginx, bounds: atMost(4, 3)},
			{what: "added delay of such a chunk, p50, against nginx", metric: "delay p50", unit: "µs", against: nginx, beyond: direct, bounds: atMost(3, 1.5)},
			{what: "with a store and `serve --openai` between, against nginx", of: serveBetween, metric: "delay p50", unit: "µs", against: nginx, beyond: direct},
		},
	}
}

func gatewayFast() family {
	return family{
		name: "gateway, 1 ms", sides: installed(ours, serveBetween, nginx, direct), warmups: 1,
		start: routes(pacedChunks(100, time.Millisecond)),
		rows: []row{
			{what: "CPU a chunk of the gateway, 100 streams at 1 ms a chunk, against nginx", metric: "CPU a chunk", unit: "µs", against: nginx},
			{what: "with a store and `serve --openai` between, both processes, against nginx", of: serveBetween, metric: "CPU a chunk", unit: "µs", against: nginx},
			{what: "pace that each of the 100 streams kept, chunks/ms, against nginx", metric: "items/ms", against: nginx},
			{what: "the same against no proxy at all", metric: "items/ms", against: direct},
		},
	}
}

func gatewayOneStream() family {
	return gatewayStreams("gateway, one stream", "one stream", 1)
}

func gatewayHundredStreams() family {
	return gatewayStreams("gateway, 100 streams", "100 streams", 100)
}

// gatewayStreams are streams whose chunks come as fast as they are taken.
func gatewayStreams(name, many string, streams int) family {
	return family{
		name: name, sides: installed(ours, serveBetween, nginx, direct), warmups: 2, start: streamingChunks(streams),
		rows: []row{
			{what: "chunks/s through the gateway, " + many + ", against nginx", metric: "items/s", unit: "/s", against: nginx},
			{what: "the same against no proxy at all", metric: "items/s", unit: "/s", against: direct},
			{what: "with a store and `serve --openai` between, against nginx", of: serveBetween, metric: "items/s", unit: "/s", against: nginx},
		},
	}
}

// streamingChunks is streaming, by way of a proxy.
func streamingChunks(streams int) func(context.Context, *bench, string) (*runner, error) {
	return func(ctx context.Context, b *bench, side string) (*runner, error) {
		r, err := b.startRoute(ctx, side, 1)
		if err != nil {
			return nil, err
		}
		return &runner{b.filling(streams, r.job), r.close}, nil
	}
}

func gatewayFirstChunk() family {
	return family{
		name: "gateway, first chunk", sides: installed(ours, serveBetween, nginx, direct), warmups: 1,
		start: routes(func(b *bench, _ string) job {
			return job{Kind: jobFirst, Items: b.count(1000, 10), Streams: b.count(100, 2), Period: 10 * time.Millisecond}
		}),
		rows: []row{
			{what: "time that the gateway adds to the first chunk, beside 100 streams at 10 ms a chunk, p50", metric: "first p50", unit: "µs", against: nginx, beyond: direct, absolute: true, bounds: atMost(1000, 400)},
			{what: "with a store and `serve --openai` between", of: serveBetween, metric: "first p50", unit: "µs", against: nginx, beyond: direct},
		},
	}
}

func gatewayMemory() family {
	return family{
		name: "gateway, memory", sides: installed(ours, serveBetween, nginx),
		start: func(ctx context.Context, b *bench, side string) (*runner, error) {
			return running(ctx, b, side, b.count(1000, 20)), nil
		},
		rows: []row{
			{what: "memory of the gateway a stream that runs, 1,000 of them at 100 ms a chunk", metric: "memory a stream", unit: "B", against: nginx, absolute: true, bounds: atMost(64<<10, 32<<10)},
			{what: "with a store and `serve --openai` between, both processes", of: serveBetween, metric: "memory a stream", unit: "B", against: nginx},
		},
	}
}

// running opens streams whose chunks come slowly, through a fresh proxy each time.
func running(ctx context.Context, b *bench, side string, streams int) *runner {
	run := func() (f figures, err error) {
		r, err := b.startRoute(ctx, side, 1)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, r.close()) }()
		before, err := r.proxy.memory()
		if err != nil {
			return nil, err
		}
		if _, _, err := r.job(job{Kind: jobHold, Streams: streams, Period: 100 * time.Millisecond}); err != nil {
			return nil, err
		}
		if _, _, err := r.job(job{Kind: jobRest, For: b.span(2 * time.Second)}); err != nil {
			return nil, err
		}
		after, err := r.proxy.memory()
		return figures{"memory a stream": (after - before) / float64(streams)}, err
	}
	return &runner{run, func() error { return nil }}
}

func gatewayBreak() family {
	return family{
		name: "gateway, break", sides: []string{ours, serveBetween}, warmups: 1,
		start: func(ctx context.Context, b *bench, side string) (*runner, error) {
			r, err := b.startRoute(ctx, side, 2)
			if err != nil {
				return nil, err
			}
			return &runner{gapsOf(b, r.pair), r.close}, nil
		},
		rows: []row{
			{what: "engine's break to next chunk at the client, from another engine, p50", metric: "gap p50", unit: "µs", absolute: true, bounds: atMost(2000, 1000)},
			{what: "with a store and `serve --openai` between", of: serveBetween, metric: "gap p50", unit: "µs"},
		},
	}
}
