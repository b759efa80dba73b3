package stream

import (
	"encoding/json"
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
	// Peer says who asks. A [Server] sets it; it is not sent.
	Peer *Peer
	// Hooks, if set, is what a [Client] calls on the request's way. It is not
	// sent.
	Hooks *Hooks
}

// Hooks are functions that a [Client] calls in the goroutine that ranges over
// [Client.Stream]'s sequence. Any may be nil.
type Hooks struct {
	// Started is called once when the server has taken the request, before the
	// first item.
	Started func()
	// Stale is called when a kept connection turned out to be dead and a fresh
	// one to the same server takes its place.
	Stale func()
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

// brokenText is the comment of an error line that asks the client to carry on
// elsewhere. Dynamo's clients recognise a broken stream by the same text.
const brokenText = "Stream ended before generation completed"

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
