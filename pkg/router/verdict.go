package router

import (
	"errors"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// verdict is what follows from the end of a stream.
type verdict struct {
	report  bool // the instance is reported down
	share   bool // and other clients are told
	retry   bool // the request goes on at another instance
	counts  bool // the attempt counts against the limit
	refusal bool // the instance did not take the request; no attempt, if no item came
	paused  bool // a pause of this process explains it; the same instance may be asked again
}

// judge is the failure model: the one place that decides what a break means.
func judge(err error) verdict {
	b, ok := errors.AsType[*stream.Break](err)
	if !ok {
		// Cancelled, the deadline passed, or a request that can't be sent.
		return verdict{}
	}
	v := judgeKind(b.Kind)
	switch {
	case b.Paused && v.counts:
		return verdict{retry: true, paused: true}
	case b.NoReport:
		v.report = false
	}
	v.share = v.report && !b.NoShare
	return v
}

func judgeKind(k stream.Kind) verdict {
	switch k {
	case stream.Unreachable, stream.Unresponsive, stream.Truncated, stream.Reset, stream.Stalled,
		stream.Failed, stream.Protocol:
		return verdict{report: true, retry: true, counts: true}
	case stream.Local, stream.Diverged:
		return verdict{retry: true, counts: true}
	case stream.Misdirected:
		return verdict{report: true, retry: true, refusal: true}
	case stream.Overloaded, stream.Draining, stream.Unresumable:
		return verdict{retry: true, refusal: true}
	case stream.Application:
		return verdict{}
	}
	return verdict{}
}

// retryAfter returns how long an instance that refused a request wants to be left
// alone, 0 if it does not say.
func retryAfter(err error) time.Duration {
	if b, ok := errors.AsType[*stream.Break](err); ok {
		return b.RetryAfter
	}
	return 0
}

// overloadLimit is how many refusals as overloaded a request takes, for each of its
// attempts, before it gives up. Two pass by a few instances that are full, and do not
// load a fleet that is full with refusals.
const overloadLimit = 2

// isRefusedEnough reports whether so many instances have refused the request as
// overloaded that it gives up.
func (c *call) isRefusedEnough() bool { return c.overloads >= overloadLimit*c.attempts }
