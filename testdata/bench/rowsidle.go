package main

import (
	"context"
	"errors"
	"time"
)

// restTime is how long idle streams are watched: the 5 s between two pings of
// ours, so that each connection sends one.
const restTime = 5 * time.Second

func idleStreams() family {
	return family{
		name: "idle streams", sides: []string{ours, theirs},
		start: func(ctx context.Context, b *bench, side string) (*runner, error) {
			return idle(ctx, b, side, 1, b.count(10_000, 200)), nil
		},
		rows: []row{
			{what: "server memory an idle open stream, 10,000 of them, against gRPC on one connection", metric: "server " + resident, unit: "B", against: theirs, bounds: atMost(0.5, 0.3)},
			{what: "of that, live objects and stacks", metric: "server " + live, unit: "B", against: theirs},
			{what: "client memory an idle open stream", metric: "client " + resident, unit: "B", against: theirs},
			{what: "CPU at rest, client + server, 10,000 idle streams, µs a second", metric: "CPU at rest", unit: "µs", against: theirs},
		},
	}
}

func idleInstances() family {
	return family{
		name: "idle instances", sides: []string{ours},
		start: func(ctx context.Context, b *bench, side string) (*runner, error) {
			instances := b.count(1000, 10)
			return idle(ctx, b, side, instances, 10*instances), nil
		},
		rows: []row{
			{what: "server memory an idle open stream, 10 at each of 1,000 instances", metric: "server " + resident, unit: "B"},
			{what: "client memory an idle open stream, 10 at each of 1,000 instances", metric: "client " + resident, unit: "B"},
			{what: "CPU at rest, client + server, 10 streams at each of 1,000 instances, µs a second", metric: "CPU at rest", unit: "µs"},
		},
	}
}

// idle opens many streams to the instances of one server process. Each
// repetition has processes of its own: memory that has been used once does not
// all go back.
func idle(ctx context.Context, b *bench, side string, instances, streams int) *runner {
	run := func() (f figures, err error) {
		p, err := b.startPair(ctx, side, 1, instances)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, p.close()) }()
		// So that what is there once, however many streams there are, is there.
		if _, _, err := p.job(job{Kind: jobItems, Streams: 1, Items: shortItems}); err != nil {
			return nil, err
		}
		f = make(figures)
		if err := p.memory(f, -1, streams); err != nil {
			return nil, err
		}
		if _, _, err := p.job(job{Kind: jobHold, Streams: streams}); err != nil {
			return nil, err
		}
		if err := p.memory(f, 1, streams); err != nil {
			return nil, err
		}
		// First the processes come to rest themselves.
		if _, _, err := p.job(job{Kind: jobRest, For: b.span(time.Second)}); err != nil {
			return nil, err
		}
		span := b.span(restTime)
		rest, _, err := p.job(job{Kind: jobRest, For: span})
		f["CPU at rest"] = rest["CPU"] / span.Seconds()
		return f, err
	}
	return &runner{run, func() error { return nil }}
}

// memory adds to f what server and client hold, times sign, for each of the streams.
func (p *pair) memory(f figures, sign float64, streams int) error {
	for who, c := range map[string]*child{"server ": p.servers[0], "client ": p.client} {
		r, err := c.do(order{Do: "memory"})
		if err != nil {
			return err
		}
		for kind, bytes := range r.Memory {
			f[who+kind] += sign * bytes / float64(streams)
		}
	}
	return nil
}
