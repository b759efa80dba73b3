package router

import (
	"errors"

	"github.com/request-migration/migrate/pkg/stream"
)

// verdict is what follows from the way in which a stream ended.
type verdict struct {
	report bool // the instance is reported down
	retry  bool // the request goes on at another instance
	counts bool // the attempt counts against the limit
}

// judge is the failure model: the one place that decides what a break means.
func judge(err error) verdict {
	b, ok := errors.AsType[*stream.Break](err)
	if !ok {
		// Cancelled, the deadline passed, or a request that can't be sent.
		return verdict{}
	}
	switch b.Kind {
	//                          report  retry  counts
	case stream.Unreachable:
		return verdict{true, true, true}
	case stream.Unresponsive:
		return verdict{true, true, true}
	case stream.Truncated, stream.Reset:
		return verdict{true, true, true}
	case stream.Stalled:
		return verdict{true, true, true}
	case stream.Failed:
		return verdict{true, true, true}
	case stream.Protocol:
		return verdict{true, true, true}
	case stream.Overloaded:
		return verdict{false, true, false}
	case stream.Draining:
		return verdict{false, true, false}
	case stream.Misdirected:
		return verdict{true, true, false}
	case stream.Unresumable:
		return verdict{false, true, false}
	case stream.Local:
		return verdict{false, true, true}
	case stream.Application:
		return verdict{false, false, false}
	}
	return verdict{}
}
