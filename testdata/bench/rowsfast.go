package main

import (
	"context"
	"time"
)

// runTime is how long one repetition lasts by intention.
const runTime = time.Second

func oneStream() family {
	return family{
		name: "one stream", sides: []string{ours, theirs, raw}, warmups: 2, start: streaming(1),
		rows: []row{
			{what: "items/s, one stream, against gRPC", metric: "items/s", unit: "/s", against: theirs, bounds: atLeast(5, 8)},
			{what: "items/s, one stream, against raw", metric: "items/s", unit: "/s", against: raw, bounds: atLeast(0.15, 0.25)},
			{what: "CPU an item, one stream, against gRPC", metric: "CPU an item", unit: "µs", against: theirs},
		},
	}
}

func hundredStreams() family {
	return family{
		name: "100 streams", sides: []string{ours, theirs}, warmups: 2, start: streaming(100),
		rows: []row{{what: "items/s, 100 streams, against gRPC", metric: "items/s", unit: "/s", against: theirs, bounds: atLeast(8, 12)}},
	}
}

// streaming reads answers whose length is such that a run takes its time.
func streaming(streams int) func(context.Context, *bench, string) (*runner, error) {
	return func(ctx context.Context, b *bench, side string) (*runner, error) {
		p, err := b.startPair(ctx, side, 1, 1)
		if err != nil {
			return nil, err
		}
		return &runner{b.filling(streams, p.job), p.close}, nil
	}
}

// filling returns runs whose answers are so long that a run takes its time: each
// run, warm-ups among them, tells how long those of the next are.
func (b *bench) filling(streams int, do func(job) (figures, reply, error)) func() (figures, error) {
	items := b.count(100_000, 1000) / streams
	return func() (figures, error) {
		f, _, err := do(job{Kind: jobItems, Streams: streams, Items: items})
		items = max(int(f["items/s"]*b.span(runTime).Seconds())/streams, 10)
		return f, err
	}
}

// callers is how many make short requests at once.
const callers = 16

func shortRequests() family {
	return family{
		name: "short requests", sides: []string{ours, theirs}, warmups: 1,
		start: jobs(func(b *bench) job {
			return job{Kind: jobRequests, Streams: callers, For: b.span(runTime)}
		}),
		rows: []row{{what: "short requests/s (11 items), warm, 16 callers, against gRPC", metric: "requests/s", unit: "/s", against: theirs, bounds: atLeast(3, 4)}},
	}
}

func freshRequests() family {
	return family{
		name: "fresh connections", sides: []string{ours, theirs}, warmups: 1,
		start: jobs(func(b *bench) job {
			return job{Kind: jobRequests, Streams: callers, For: b.span(runTime), Fresh: true}
		}),
		rows: []row{{what: "short requests/s, a fresh connection each, against gRPC", metric: "requests/s", unit: "/s", against: theirs, bounds: atLeast(2, 3)}},
	}
}

func firstItem() family {
	return family{
		name: "first item", sides: []string{ours, theirs}, warmups: 1,
		start: jobs(func(b *bench) job {
			return job{Kind: jobFirst, Items: b.count(5000, 10)}
		}),
		rows: []row{{what: "time to first item, warm, p50, against gRPC", metric: "first p50", unit: "µs", against: theirs, bounds: atMost(0.5, 0.35)}},
	}
}

func pacedItems() family {
	const period = time.Millisecond
	return family{
		name: "paced", sides: []string{ours, theirs}, warmups: 1,
		start: jobs(func(b *bench) job {
			return job{Kind: jobPaced, Streams: 100, Items: int(b.span(2*runTime) / period), Period: period}
		}),
		rows: []row{
			{what: "CPU an item, 100 streams paced at about 1 item/ms each, against gRPC", metric: "CPU an item", unit: "µs", against: theirs, bounds: atMost(0.7, 0.55)},
			{what: "delay of a paced item, p50, against gRPC", metric: "delay p50", unit: "µs", against: theirs, bounds: atMost(1, 0.6)},
			{what: "pace that each of the 100 streams kept, items/ms", metric: "items/ms", against: theirs},
		},
	}
}
