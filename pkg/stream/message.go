package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"time"
)

// MaxLine is the longest line that either side may send, in bytes, without its
// newline. A longer line breaks the stream, so that neither side can be made to
// hold an endless line in memory.
const MaxLine = 1 << 20

// Request is what a client asks of a server.
type Request struct {
	// ID names the request in logs. It is the same over all attempts, so that a
	// handler can use it as an idempotency key. Package router makes it 16 hex
	// digits.
	ID string
	// To names the intended record, as "namespace/component/endpoint/id". A
	// server that has names refuses any other one with [Misdirected]; every
	// server accepts "".
	To string
	// Data is the question: any JSON value. It is required.
	Data json.RawMessage
	// From is the index of the first item wanted, 0 for a whole answer.
	From int
	// Prefix holds the items before From as they came, exactly From of them, for a
	// handler that goes on behind them; most do not need it. It may be empty.
	Prefix []Annotated
	// Attempt counts from 1; 0 stands for 1. An overloaded server may refuse
	// later attempts first.
	Attempt int
	// Timeout is how much time is left for the request, to the millisecond: the
	// handler's context ends when it has passed. 0 sets no bound. If the deadline
	// of the context given to [Client.Stream] is sooner, that is sent instead.
	Timeout time.Duration
	// Headers are passed to the handler unchanged, and are the same over all
	// attempts. Names are in lower case; names and values have at most
	// [MaxHeaders] bytes together.
	Headers map[string]string
	// MaxSize is the longest request line that the server accepts, in bytes,
	// according to its record. It is not sent. 0 means [MaxLine].
	MaxSize int
	// Peer is the client. A [Server] sets it; it is not sent.
	Peer *Peer
	// Hooks, if set, is what a [Client] calls while it makes the request. It is
	// not sent.
	Hooks *Hooks
}

// Hooks are functions that a [Client] calls in the goroutine that ranges over
// [Client.Stream]'s sequence. Any of them may be nil.
type Hooks struct {
	// Started is called once when the server has accepted the request, before the
	// first item.
	Started func()
	// Stale is called when a kept connection turns out to be dead and a fresh one
	// to the same server takes its place.
	Stale func()
}

// MaxHeaders is how many bytes the names and values of [Request.Headers] may
// have together.
const MaxHeaders = 8 << 10

// Peer is the other end of a connection, as a handler sees it.
type Peer struct {
	// Addr is its network address.
	Addr net.Addr
}

// Text returns the string that Data holds, and whether it is a string.
func (r *Request) Text() (string, bool) { return text(r.Data) }

// Annotated is one line of an answer. The type, its field names and their
// order are NVIDIA Dynamo's. A field that is absent is zero.
type Annotated struct {
	// Data is an item: any JSON value.
	Data    json.RawMessage `json:"data,omitempty"`
	ID      string          `json:"id,omitempty"`
	Event   string          `json:"event,omitempty"`
	Comment []string        `json:"comment,omitempty"`
}

// CommentContent among the comments of an item with an Event says that it is a part of the
// answer, and no remark about it.
const CommentContent = "content"

// IsRemark reports whether an item says something about the answer, and is no part of it: it
// has an Event, and not [CommentContent]. Remarks of an answer that begins anew are not
// compared with those of the one before.
func (a Annotated) IsRemark() bool {
	return a.Event != "" && !slices.Contains(a.Comment, CommentContent)
}

// Text returns the string that Data holds, and whether it is a string.
func (a Annotated) Text() (string, bool) { return text(a.Data) }

// Content returns the text that an item adds to the text of an answer: the string that Data
// holds, or the string "text" of the object that it holds. It reports whether there is one.
// An item with an Event is a remark about the answer and adds nothing, whatever it holds.
func (a Annotated) Content() (string, bool) {
	if a.Event != "" {
		return "", false
	}
	return text(contentOf(a.Data))
}

// contentOf returns the JSON of what may be an item's text.
func contentOf(data json.RawMessage) json.RawMessage {
	if len(data) == 0 || data[0] != '{' {
		return data
	}
	var object map[string]json.RawMessage // a struct's field would match in any case
	if json.Unmarshal(data, &object) != nil {
		return nil
	}
	return object["text"]
}

func text(data json.RawMessage) (string, bool) {
	if isPlainString(data) {
		return string(data[1 : len(data)-1]), true
	}
	if isString(data) {
		if s, ok := unescape(data[1 : len(data)-1]); ok {
			return s, true
		}
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

// The events that a line can carry. A line with another event is an item if it
// has data, and is ignored if not.
const (
	eventStart       = "start"
	eventEnd         = "end"
	eventError       = "error"
	eventOverloaded  = "overloaded"
	eventDraining    = "draining"
	eventMisdirected = "misdirected"
	eventUnresumable = "unresumable"
	eventPing        = "ping"
	// From client to server, on a running stream.
	eventCancel = "cancel"
	eventCredit = "credit"
)

// failedText is the first comment of an error line that asks the client to carry
// on elsewhere. Dynamo's clients recognise a broken stream by the same text.
const failedText = "Stream ended before generation completed"

// initialCredit is how many bytes of lines the server may send on a numbered
// stream before the client grants more. It bounds how much either end holds for
// one slow reader, and still covers thousands of items of tens of bytes.
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
// data is not JSON or is nested too deeply, or its line would be too long. It
// is the caller's mistake, is noticed before anything is sent, and is not a
// [Break].
var ErrInvalidRequest = errors.New("invalid request")

const (
	// ownConnection is the longest line of a request that shares a connection: a
	// longer one would hold up the others.
	ownConnection = 256 << 10
	// roomForTo is how many bytes are reserved for To if it is shorter or absent;
	// longestID is how many the id at its end may have at another attempt.
	roomForTo = 256
	longestID = 16
)

// outgoing is a request that can be sent.
type outgoing struct {
	Request            // with Data on one line
	deadline time.Time // the sooner of Timeout's and the context's; zero if none
	size     int       // upper bound of its line, in bytes
}

// newOutgoing checks req and prepares it to be sent. A request that passes once
// also passes when it is retried: room is reserved for what differs between
// attempts.
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
	if req.Prefix, err = sendablePrefix(req.Prefix, req.From); err != nil {
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

// setDeadline sets when the request's time is over.
func (o *outgoing) setDeadline(ctx context.Context) {
	deadline, ok := ctx.Deadline()
	if o.Timeout > 0 {
		if own := time.Now().Add(o.Timeout); !ok || own.Before(deadline) {
			deadline = own
		}
	}
	o.deadline = deadline
}

// now returns the request as it is to be sent now.
func (o *outgoing) now() Request {
	req := o.Request
	if !o.deadline.IsZero() {
		req.Timeout = min(max(time.Until(o.deadline), time.Millisecond), maxTimeoutMS*time.Millisecond)
	}
	return req
}

// alone reports whether the request needs a connection of its own.
func (o *outgoing) alone() bool { return o.size > ownConnection }

// roughly returns an upper bound of the bytes in a request's line besides its
// data.
func roughly(req Request) int {
	const escaped = 6 // at most, bytes for one
	n := 512 + escaped*(len(req.ID)+len(req.To)+longestID) + roomForTo
	for name, value := range req.Headers {
		n += escaped * (len(name) + len(value) + 1)
	}
	for _, a := range req.Prefix {
		n += len(a.Data) + escaped*(len(a.ID)+len(a.Event)+3*len(a.Comment)) + len(`{"data":,"id":"","event":"","comment":[]},`)
		for _, c := range a.Comment {
			n += escaped * len(c)
		}
	}
	return n
}

// sendablePrefix returns prefix, the items before from, with each item's data on one
// line.
func sendablePrefix(prefix []Annotated, from int) ([]Annotated, error) {
	if len(prefix) == 0 {
		return nil, nil
	}
	if err := checkPrefix(prefix, from); err != nil {
		return nil, err
	}
	sendable := slices.Clone(prefix)
	for i := range sendable {
		data, err := onOneLine(sendable[i].Data)
		if err != nil {
			return nil, fmt.Errorf("item %d of its prefix: %w", i, err)
		}
		sendable[i].Data = data
	}
	return sendable, nil
}

// exactly returns the least such bound: everything that differs between
// attempts takes as much room as it can.
func exactly(req Request) int {
	req.Data = nil
	req.From, req.Attempt, req.Timeout = math.MaxInt, math.MaxInt, maxTimeoutMS*time.Millisecond
	to := max(roomForTo, strings.LastIndexByte(req.To, '/')+1+longestID)
	req.To += strings.Repeat("x", max(to-len(req.To), 0))
	return len(appendRequest(nil, math.MaxInt64, req)) - len("\n")
}
