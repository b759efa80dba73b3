package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"time"
)

// MaxLine is the longest line either side may send, in bytes, without its
// newline. A longer one breaks the stream, so that nobody can be made to hold
// an endless line in memory.
const MaxLine = 1 << 20

// Request is what a client asks of a server.
type Request struct {
	// ID names the request in logs, and is the same over all attempts, so that
	// a handler can use it as an idempotency key. Package router makes it 16
	// hex digits.
	ID string
	// To names the record that is meant, as "namespace/component/endpoint/id".
	// A server that has names of its own and not this one refuses the request
	// with [Misdirected]; "" is taken by every server.
	To string
	// Data is the question: any JSON value. It is required.
	Data json.RawMessage
	// From is the index of the first item wanted, 0 for a whole answer.
	From int
	// Attempt counts from 1; 0 stands for 1. An overloaded server may refuse
	// later attempts first.
	Attempt int
	// Timeout is how much time is left for the request, to the millisecond: the
	// handler's context ends then. 0 means no bound but the deadline of the
	// context that [Client.Stream] gets, which is sent if it is sooner.
	Timeout time.Duration
	// Headers go to the handler as they are, the same over all attempts: names
	// in lower case, [MaxHeaders] bytes of names and values at most.
	Headers map[string]string
	// MaxSize is how many bytes the server takes in a request's line, by its
	// record. It is not sent. 0 means [MaxLine].
	MaxSize int
	// OnStale, if set, is called by [Client.Stream], in its caller's goroutine,
	// when a kept connection turned out to be dead and a fresh one to the same
	// server takes its place. It is not sent.
	OnStale func()
	// Peer says who asks. A [Server] sets it; it is not sent.
	Peer Peer
	// OnStart, if set, is called once when the server has taken the request, by
	// the goroutine that ranges over [Client.Stream]'s sequence and before its
	// first item. It is not sent.
	OnStart func()
}

// MaxHeaders is how many bytes the names and values of [Request.Headers] have
// together at most.
const MaxHeaders = 8 << 10

// Peer is the other end of a connection, as a handler sees it.
type Peer struct {
	// Addr is its network address.
	Addr net.Addr
}

// Text returns the string that Data holds, and whether it is a string.
func (r Request) Text() (string, bool) { return text(r.Data) }

// Annotated is one line of an answer. The type, its field names and their
// order are NVIDIA Dynamo's. A field that is absent is zero.
type Annotated struct {
	// Data is an item: any JSON value.
	Data    json.RawMessage `json:"data,omitempty"`
	ID      string          `json:"id,omitempty"`
	Event   string          `json:"event,omitempty"`
	Comment []string        `json:"comment,omitempty"`
}

// Text returns the string that Data holds, and whether it is a string.
func (a Annotated) Text() (string, bool) { return text(a.Data) }

func text(data json.RawMessage) (string, bool) {
	if isPlainString(data) {
		return string(data[1 : len(data)-1]), true
	}
	if len(data) == 0 || data[0] != '"' {
		return "", false
	}
	var s string
	if json.Unmarshal(data, &s) != nil {
		return "", false
	}
	return s, true
}

// String returns s as the JSON value that [Request.Data] and [Annotated.Data]
// hold. Bytes that are not UTF-8 become U+FFFD.
func String(s string) json.RawMessage {
	return appendString(make([]byte, 0, len(s)+2), s)
}

// The events that a line can carry. Lines with another event are items if they
// have data, and are passed over if not.
const (
	eventStart       = "start"
	eventEnd         = "end"
	eventError       = "error"
	eventOverloaded  = "overloaded"
	eventDraining    = "draining"
	eventMisdirected = "misdirected"
	eventUnresumable = "unresumable"
	eventPing        = "ping"
	// From client to server, on a stream that runs.
	eventCancel = "cancel"
	eventCredit = "credit"
)

// failedText is the first comment of an error line that asks the client to carry
// on elsewhere. Dynamo's clients recognise a broken stream by the same text.
const failedText = "Stream ended before generation completed"

// initialCredit is how many bytes of lines a numbered stream may be sent before
// the client grants more. It bounds what one slow reader can make the other end
// hold, and at tens of bytes an item still covers thousands of them.
const initialCredit = 256 << 10

// comment joins the comments of a control line into one text.
func (a Annotated) comment() string {
	if len(a.Comment) == 0 {
		return "no reason given"
	}
	return strings.Join(a.Comment, "; ")
}

func isControl(event string) bool {
	switch event {
	case eventStart, eventEnd, eventError, eventOverloaded, eventDraining, eventMisdirected, eventUnresumable, eventPing:
		return true
	}
	return false
}

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
