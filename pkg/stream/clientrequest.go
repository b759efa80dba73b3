package stream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// ErrInvalidRequest is the error of a request that no server would read: its
// data is no JSON or nested too deeply, its line would be too long. It is the
// caller's mistake, is noticed before anything is sent, and is no [Break].
var ErrInvalidRequest = errors.New("invalid request")

const (
	// ownConnection is the longest line of a request that shares a connection:
	// a longer one would keep the others waiting.
	ownConnection = 256 << 10
	// roomForTo is how many bytes are kept for To where it is shorter or absent;
	// longestID is how many the id at its end may have at another attempt.
	roomForTo = 256
	longestID = 16
)

// outgoing is a request that can be sent.
type outgoing struct {
	Request            // its Data is on one line
	deadline time.Time // of Timeout and the context, whichever is sooner; zero if none
	size     int       // bytes that its line has at most
}

// newOutgoing checks req and makes it ready to be sent. What passes once also
// passes when it is tried again: room is kept for what may come to be said then.
func newOutgoing(req Request) (outgoing, error) {
	invalid := func(err error) (outgoing, error) {
		return outgoing{}, fmt.Errorf("sending a request: %w: %w", ErrInvalidRequest, err)
	}
	data, err := onOneLine(req.Data)
	if err != nil {
		return invalid(err)
	}
	if req.From < 0 {
		return invalid(fmt.Errorf("it starts at item %d, want 0 or more", req.From))
	}
	if err := checkHeaders(req.Headers); err != nil {
		return invalid(err)
	}
	req.Data = data
	o := outgoing{Request: req, size: len(data) + roughly(req)}
	limit := cmpOr(req.MaxSize, MaxLine)
	if o.size > min(limit, ownConnection) {
		o.size = len(data) + exactly(req)
	}
	if o.size > limit {
		return invalid(fmt.Errorf("its line may have %d bytes, more than %d", o.size, limit))
	}
	return o, nil
}

// setDeadline sets until when the request has time.
func (o *outgoing) setDeadline(ctx context.Context) {
	deadline, ok := ctx.Deadline()
	if o.Timeout > 0 {
		if own := time.Now().Add(o.Timeout); !ok || own.Before(deadline) {
			deadline = own
		}
	}
	o.deadline = deadline
}

// now returns the request as it is sent at this moment.
func (o *outgoing) now() Request {
	req := o.Request
	if !o.deadline.IsZero() {
		req.Timeout = min(max(time.Until(o.deadline), time.Millisecond), maxTimeoutMS*time.Millisecond)
	}
	return req
}

// alone reports whether the request has a connection of its own.
func (o *outgoing) alone() bool { return o.size > ownConnection }

// roughly returns how many bytes a request's line has at most besides its data.
func roughly(req Request) int {
	const escaped = 6 // bytes for one, at most
	n := 512 + escaped*(len(req.ID)+len(req.To)+longestID) + roomForTo
	for name, value := range req.Headers {
		n += escaped * (len(name) + len(value) + 1)
	}
	return n
}

// exactly returns the same as it comes out if all that differs between attempts
// takes as much room as it can.
func exactly(req Request) int {
	req.Data = nil
	req.From, req.Attempt, req.Timeout = math.MaxInt, math.MaxInt, maxTimeoutMS*time.Millisecond
	to := max(roomForTo, strings.LastIndexByte(req.To, '/')+1+longestID)
	req.To += strings.Repeat("x", max(to-len(req.To), 0))
	return len(appendRequest(nil, math.MaxInt64, req)) - len("\n")
}

// maxDepth is how deeply encoding/json reads nested data, on either side.
const maxDepth = 10_000

// tooDeep reports whether data, which is JSON, can't be read any more once it
// stands in a line, which is an object around it.
func tooDeep(data json.RawMessage) bool {
	if bytes.Count(data, []byte{'['})+bytes.Count(data, []byte{'{'}) < maxDepth {
		return false
	}
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[', c == '{':
			if depth++; depth >= maxDepth {
				return true
			}
		case c == ']', c == '}':
			depth--
		}
	}
	return false
}
