package router

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// script draws what a server will do.
func (s *sim) script(q *simRequest, i discovery.Instance, way Way) *visit {
	rng := s.rand(3, uint64(q.n), uint64(i.ID), uint64(len(q.visits)))
	v := &visit{s: s, q: q, instance: i, way: way, items: q.answerOf(i, way), how: rng.IntN(1000)}
	v.n = len(v.items)
	if way == WayIndex || way == WayPrefix {
		v.from, v.prefix = q.got, q.text()
	}
	if way == WayReplay {
		v.undivided = v.n >= q.got && slices.Equal(v.items[:q.got], q.items)
		v.isOther = !strings.HasPrefix(strings.Join(v.items, ""), q.text())
	}
	if rng.Float64() < s.faulty {
		kinds := simKinds
		switch {
		case s.servers != nil:
			kinds = simServerKinds
		case s.wire == nil:
			kinds = slices.Concat(simKinds, []stream.Kind{stream.Misdirected, stream.Unresumable, stream.Local})
			v.says = stream.Break{NoReport: rng.IntN(8) == 0, NoShare: rng.IntN(8) == 0, Paused: rng.IntN(8) == 0}
		}
		v.kind = kinds[rng.IntN(len(kinds))]
		if rng.IntN(3) > 0 { // otherwise only the end is lost
			v.n = rng.IntN(len(v.items) + 1)
		}
	}
	switch v.kind {
	case stream.Unreachable, stream.Unresponsive, stream.Overloaded, stream.Misdirected, stream.Unresumable:
		v.n = 0
	case stream.Draining, stream.Application:
		v.says = stream.Break{}
	default:
		v.starts = true
	}
	if q.refusal(v) {
		v.says = stream.Break{}
	}
	if v.kind == stream.Overloaded && s.wire == nil && rng.IntN(2) == 0 {
		v.says.RetryAfter = 1 + upTo(rng, time.Minute)
	}
	v.lag = 1 + upTo(rng, []time.Duration{time.Microsecond, 50 * time.Millisecond, 1900 * time.Millisecond}[rng.IntN(3)])
	if rng.IntN(3) > 0 {
		v.pace, v.delay = upTo(rng, 20*time.Millisecond), upTo(rng, 20*time.Millisecond)
	}
	if rng.IntN(6) == 0 && s.wire == nil {
		v.delay = upTo(rng, 15*time.Second)
	}
	return v
}

// direct plays the script without a wire.
func (v *visit) direct(ctx context.Context, req stream.Request) iter.Seq2[stream.Annotated, error] {
	return func(yield func(stream.Annotated, error) bool) {
		err := pause(ctx, v.lag)
		if err == nil && v.starts {
			req.Hooks.Started()
		}
		for n, item := range v.items[:v.n] {
			if err == nil && n > 0 {
				err = pause(ctx, v.pace)
			}
			if err == nil && !yield(stream.Annotated{Data: stream.String(item)}, nil) {
				return
			}
		}
		if err == nil {
			err = pause(ctx, v.delay)
		}
		if err == nil && v.kind != "" {
			b := v.says
			b.Kind, b.Reason = v.kind, fmt.Sprintf("as the script has it, after %d items", v.n)
			err = &b
		}
		if err != nil {
			yield(stream.Annotated{}, err)
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
