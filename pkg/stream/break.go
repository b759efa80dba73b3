package stream

import (
	"errors"
	"fmt"
)

// Kind tells breaks apart. Every kind is an error, so that
//
//	errors.Is(err, stream.Stalled)
//
// asks what broke a stream. The kinds, and what follows from each, are the
// failure model of this project; package router acts on them.
type Kind string

// The kinds of break.
const (
	// Unreachable: no connection within the dial timeout.
	Unreachable Kind = "unreachable"
	// Unresponsive: a connection, but no start line within the start timeout.
	Unresponsive Kind = "unresponsive"
	// Truncated: the connection was closed before the end line.
	Truncated Kind = "truncated"
	// Reset: the connection was torn down before the end line.
	Reset Kind = "reset"
	// Stalled: the connection stands, but no line came for the stall timeout,
	// or no item for the item timeout.
	Stalled Kind = "stalled"
	// Failed: the server says that it broke the stream and that another
	// server may carry on.
	Failed Kind = "failed"
	// Protocol: the server sent what the wire does not allow: bad JSON, a line
	// that is too long, a start or a count that is wrong.
	Protocol Kind = "protocol"
	// Overloaded: a healthy server did not take the request.
	Overloaded Kind = "overloaded"
	// Draining: a server that is leaving did not take the request, or handed
	// the stream back.
	Draining Kind = "draining"
	// Application: the request itself failed; it would fail elsewhere too.
	Application Kind = "application"
)

// Error returns the kind's name.
func (k Kind) Error() string { return string(k) }

// Break is the error of a stream that ended in any way but its end line.
type Break struct {
	Kind Kind
	// Reason says in words what was seen; for what the server said, in its
	// own words.
	Reason string
	// Err is the cause, when there is one beneath: an error of the network or
	// of JSON.
	Err error
}

// Error returns the kind, the reason and the cause.
func (b *Break) Error() string {
	if b.Err != nil {
		return fmt.Sprintf("%s: %s: %v", b.Kind, b.Reason, b.Err)
	}
	return fmt.Sprintf("%s: %s", b.Kind, b.Reason)
}

// Unwrap returns the kind and the cause, for errors.Is and errors.As.
func (b *Break) Unwrap() []error {
	if b.Err != nil {
		return []error{b.Kind, b.Err}
	}
	return []error{b.Kind}
}

// Errors that a [Handler] or [Server.Admit] returns to end a stream in a way
// of its own. Any other error is the request's own failure: its text goes to
// the caller and nobody retries.
var (
	// ErrBroken breaks the stream: the client carries on elsewhere, and takes
	// this server out of its list for a while.
	ErrBroken = errors.New(brokenText)
	// ErrOverloaded, from Admit, refuses a request that a less loaded server
	// may take; this one is not blamed.
	ErrOverloaded = errors.New("server is overloaded")
)

// ErrDraining is why a server that is leaving does not take a request, and the
// cause with which a handler's context ends when its stream was handed back.
// From a [Handler] it hands that one stream back.
var ErrDraining = errors.New("server is leaving")

// ErrClosed is returned by a [Client] that was closed, and by [Server.Serve]
// after [Server.Shutdown] or [Server.Close].
var ErrClosed = errors.New("stream: closed")
