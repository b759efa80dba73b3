package router

import (
	"context"
	"encoding/json"
	"iter"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// Request is what a caller asks of an endpoint.
type Request struct {
	// ID names the request in logs and on the wire; "" means 16 random hex
	// digits.
	ID string
	// Data is what the instance is asked: any JSON value.
	Data json.RawMessage
	// Instance is the name or id (in hex) of the instance for the first attempt;
	// "" is any. If it is down, the request goes to another; if it is not listed, the
	// request waits for [Config.Wait] and fails.
	Instance string
	// Prefer is the name or id (in hex) of the instance to which each attempt goes as
	// long as that is available, can carry the answer on, and has neither refused nor
	// broken this request; "" is any. If it is not listed, the request goes to another.
	Prefer string
	// Key is for the [Picker], such as the session to which the request belongs:
	// [Affinity] keeps those with the same key together.
	Key string
	// From is the index of the first item that the caller lacks, as in the Last-Event-ID
	// of a browser that comes back, and Prefix the items before it; if Prefix is set,
	// From may be 0. Without Prefix only an instance that resumes by index can serve
	// the request.
	From   int
	Prefix []stream.Annotated
	// Attempts is how many streams this request may open; 0 means
	// [Config.Attempts].
	Attempts int
	// Wait and WaitRestore are for how long this request waits for an instance; 0 means
	// [Config.Wait] and [Config.WaitRestore].
	Wait, WaitRestore time.Duration
	// Timeout is the time that each instance is told it has; 0 means the time
	// until the context's deadline, if any. It does not end the request here:
	// the context does.
	Timeout time.Duration
	// Headers go to each instance with the request, see [stream.Request].
	Headers map[string]string
	// Ping, if above 0, makes the sequence yield a ping, see [Item.IsPing], each time that
	// nothing has come for so long, so that a caller can keep its own client waiting. The
	// request then runs in a goroutine of its own, which ends before the sequence does.
	Ping time.Duration
	// Trace, if set, follows this request, after the one of [Config.Trace].
	Trace *Trace
}

// Item is one item of an answer, with the instance that sent it.
type Item struct {
	stream.Annotated
	// Index is the item's place in the answer, from 0. With [Config.Restart]
	// each attempt begins at 0 again.
	Index   int
	Attempt int // from 1
	Peer    *Peer
}

// Do sends req to an available instance, yields the items as they come, and
// carries on at another instance when the stream breaks. If the sequence ends
// without an error, the answer is complete. Otherwise its last pair holds the
// error:
//
//   - [*NoInstancesError] if no instance was left,
//   - [*OverloadedError] if none was left and some had refused as overloaded,
//   - [*CannotResumeError] if no instance left can carry the answer on,
//   - [ErrAttemptsUsedUp] after the last attempt,
//   - [stream.Application] if the request itself failed,
//   - [ErrClosed] if the router or its client was closed,
//   - [stream.ErrInvalidRequest] if the request cannot be sent,
//   - the error of the source if that could not be read even once,
//   - any error of the client that is no break, see [Client],
//   - ctx's error if ctx ended first.
//
// All but the last are, or are within, an [*AttemptsError] if attempts broke
// before. None but the last matches [context.Canceled] or [context.DeadlineExceeded].
// Leaving the sequence early cancels the request.
func (r *Router) Do(ctx context.Context, req Request) iter.Seq2[Item, error] {
	if req.Ping > 0 {
		return r.doWithPings(ctx, req)
	}
	return r.do(ctx, req, nil)
}
