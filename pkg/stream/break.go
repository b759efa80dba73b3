package stream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Kind says what broke a stream. Every kind is an error: errors.Is(err,
// stream.Stalled) reports whether err is that of a stalled stream. The kinds,
// and what follows from each, are the failure model of this project; package
// router acts on them.
type Kind string

// The kinds of break.
const (
	// Unreachable: no connection within the dial timeout.
	Unreachable Kind = "unreachable"
	// Unresponsive: a connection, but no start line within the start timeout
	// after the request's last byte.
	Unresponsive Kind = "unresponsive"
	// Truncated: the connection was closed before the end line.
	Truncated Kind = "truncated"
	// Reset: the connection was torn down before the end line.
	Reset Kind = "reset"
	// Stalled: the connection stands, but no byte came for the stall timeout, or
	// no item for the item timeout.
	Stalled Kind = "stalled"
	// Failed: the server said that the stream broke and that another server may
	// carry on.
	Failed Kind = "failed"
	// Protocol: the server sent something that the wire does not allow: bad JSON,
	// a line that is too long, a wrong start or count.
	Protocol Kind = "protocol"
	// Overloaded: a healthy server did not take the request.
	Overloaded Kind = "overloaded"
	// Draining: a server that is leaving did not take the request, or handed the
	// stream back.
	Draining Kind = "draining"
	// Misdirected: the server at that address is not the intended one.
	Misdirected Kind = "misdirected"
	// Unresumable: the server cannot begin at the item that was asked for.
	Unresumable Kind = "unresumable"
	// Diverged: an answer that began anew to be carried on differs from what the
	// caller has of it. Package router compares them; no server says so.
	Diverged Kind = "diverged"
	// Local: this machine's own trouble, such as no file descriptor, no
	// network or a name that cannot be looked up.
	Local Kind = "local"
	// Application: the request itself failed; it would fail elsewhere too.
	Application Kind = "application"
)

// Error returns the kind's name.
func (k Kind) Error() string { return string(k) }

// isSilence reports whether a break of this kind was seen on the network rather
// than said by the server.
func (k Kind) isSilence() bool {
	switch k {
	case Unreachable, Unresponsive, Truncated, Reset, Stalled:
		return true
	case Failed, Protocol, Overloaded, Draining, Misdirected, Unresumable, Diverged, Local, Application:
	}
	return false
}

// Break is the error of a stream that ended in any way but with its end line.
type Break struct {
	Kind Kind
	// Reason says in words what was seen, or is the server's own text. Without one the
	// text of Err says it.
	Reason string
	// Data is what the server sent with its reason, if anything.
	Data json.RawMessage
	// RetryAfter is how long an overloaded server asks the client to wait from
	// now; 0 if it does not say.
	RetryAfter time.Duration
	// NoReport says that the server is not to be reported down: either it says
	// that it is sound and only this piece of work failed, or Paused is set.
	NoReport bool
	// NoShare says that a report concerns this client alone, as its own settings
	// caused the break: [Client.ItemTimeout], or another bound below its default.
	NoShare bool
	// Silent says that a server which failed says that nothing came for too long
	// from what it asked, see [ErrFailedSilent].
	Silent bool
	// Paused says that this process did not run for a while (SIGSTOP, a frozen
	// machine) just before the break, which therefore says nothing about the
	// server.
	Paused bool
	// Err is the underlying cause, if there is one: an error of the network or of
	// JSON, or an [*Error] for [Application].
	Err error
}

// Error returns the kind and the text.
func (b *Break) Error() string {
	if text := b.Text(); text != "" {
		return string(b.Kind) + ": " + text
	}
	return string(b.Kind)
}

// Text returns the reason and the cause, without the kind.
func (b *Break) Text() string {
	_, said := errors.AsType[*Error](b.Err)
	switch {
	case b.Err == nil || said:
		return b.Reason
	case b.Reason == "":
		return b.Err.Error()
	}
	return fmt.Sprintf("%s: %v", b.Reason, b.Err)
}

// Unwrap returns the kind and the cause, for errors.Is and errors.As. A break is
// never [context.Canceled] or [context.DeadlineExceeded], which tell a caller that
// its own context has ended: a dial that took too long has a context of its own.
func (b *Break) Unwrap() []error {
	switch {
	case b.Err == nil:
		return []error{b.Kind}
	case isContextError(b.Err):
		return []error{b.Kind, ownContext{b.Err}}
	}
	return []error{b.Kind, b.Err}
}

// ownContext is the cause of a break that comes from a context other than the
// caller's.
type ownContext struct{ error }

// Is reports whether the cause is target, and no error of a context.
func (o ownContext) Is(target error) bool {
	return !isContextError(target) && errors.Is(o.error, target)
}

// As finds the first error in the cause that matches target.
func (o ownContext) As(target any) bool { return errors.As(o.error, target) }

func isContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// Errors that a [Handler] or [Server.Admit] returns, alone or wrapped, to end a
// stream in a particular way. Any other error is the request's own failure: its
// text goes to the caller and nobody retries; [Error] adds data to the text.
var (
	// ErrFailed breaks the stream: the client carries on elsewhere, and reports
	// this server down.
	ErrFailed = errors.New(failedText)
	// ErrFailedUnreported breaks the stream like [ErrFailed], which it wraps, and
	// says that the server is sound: only this piece of work failed, and the
	// client does not report the server.
	ErrFailedUnreported = fmt.Errorf("%w; the server is sound", ErrFailed)
	// ErrFailedSilent breaks the stream like [ErrFailed], which it wraps, and says
	// that what the handler asked gave nothing for too long: asked again it would
	// most likely keep the client waiting again.
	ErrFailedSilent = fmt.Errorf("%w; nothing came for too long", ErrFailed)
	// ErrOverloaded refuses a request that a less loaded server may take. The
	// client does not report this server. [OverloadedFor] also says for how long.
	ErrOverloaded = errors.New("server is overloaded")
	// ErrDraining is why a server that is leaving does not take a request, and
	// the cause with which a handler's context ends when its stream was handed
	// back. Returned by a [Handler], it hands that one stream back.
	ErrDraining = errors.New("server is leaving")
	// ErrUnresumable refuses a request because the handler cannot begin at
	// [Request.From], or go on behind [Request.Prefix].
	ErrUnresumable = errors.New("cannot begin there")
)

// OverloadedFor returns an error that is [ErrOverloaded] and asks the client to
// come back after d.
func OverloadedFor(d time.Duration) error { return overloadedFor{d} }

type overloadedFor struct{ d time.Duration }

func (o overloadedFor) Error() string { return ErrOverloaded.Error() }

func (o overloadedFor) Unwrap() error { return ErrOverloaded }

// RetryAfter returns how long the client is asked to wait. Package router looks for it
// in the errors of its clients.
func (o overloadedFor) RetryAfter() time.Duration { return o.d }

// Error is a request's own failure, with data for the caller, such as a code. A
// [Handler] returns it, and the caller of a [Client] finds it with errors.As in
// the [Break] of kind [Application].
type Error struct {
	Message string
	// Data is any JSON value, or nil.
	Data json.RawMessage
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// ErrClosed is returned by a closed [Client], and by [Server.Serve] after
// [Server.Shutdown] or [Server.Close].
var ErrClosed = errors.New("stream: closed")

// readBreak is the break by which a connection ended.
func readBreak(err error) error {
	switch {
	case errors.Is(err, errLineTooLong):
		return &Break{Kind: Protocol, Reason: err.Error()}
	case errors.Is(err, io.EOF):
		return &Break{Kind: Truncated, Reason: "connection closed before the end of the stream"}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &Break{Kind: Truncated, Reason: "connection closed in the middle of a line"}
	}
	b := &Break{Kind: Reset, Reason: "connection lost before the end of the stream", Err: err}
	if isLocal(err) {
		b.Kind = Local
	}
	return b
}

// said returns the break that a line is with which the server refuses a stream,
// hands it back or ends it with an error; nil for other lines.
func said(a Annotated) *Break {
	b := &Break{Reason: a.comment(), Data: a.Data}
	switch a.Event {
	case eventOverloaded, eventDraining, eventUnresumable:
		b.Kind, b.RetryAfter = Kind(a.Event), retryAfter(a.Data)
	case eventMisdirected:
		b.Kind = Misdirected
	case eventError:
		// The first comment says which error it is, further ones why.
		if len(a.Comment) == 0 || a.Comment[0] != failedText {
			b.Kind, b.Err = Application, &Error{Message: b.Reason, Data: a.Data}
			return b
		}
		b.Kind = Failed
		b.NoReport, b.Silent = failedHow(a.Data)
		if len(a.Comment) > 1 {
			b.Reason = strings.Join(a.Comment[1:], "; ")
		}
	default:
		return nil
	}
	return b
}

// unknownRefusal is the break of a stream that a newer server has not started,
// for a reason that this client does not know.
func unknownRefusal(a Annotated) *Break {
	return &Break{Kind: Overloaded, Reason: "server refuses with " + a.Event + ": " + a.comment(), Data: a.Data, RetryAfter: retryAfter(a.Data)}
}

// retryAfter reads for how long a server that has refused asks the client to
// wait.
func retryAfter(data json.RawMessage) time.Duration {
	var d struct {
		MS float64 `json:"retry_after_ms"`
	}
	if len(data) == 0 || json.Unmarshal(data, &d) != nil {
		return 0 // data for others
	}
	return time.Duration(min(max(d.MS, 0), maxTimeoutMS)) * time.Millisecond
}

// failedHow reads what a server that has failed a stream says of it: that it is sound, or
// that nothing came for too long.
func failedHow(data json.RawMessage) (noReport, silent bool) {
	var d struct {
		Report *bool `json:"report"`
		Silent bool  `json:"silent"`
	}
	if len(data) == 0 || json.Unmarshal(data, &d) != nil {
		return false, false // data for others
	}
	return d.Report != nil && !*d.Report, d.Silent
}

// notUnderstood is the break that an error line without a stream is.
func notUnderstood(a Annotated) *Break {
	return &Break{Kind: Protocol, Reason: "server did not understand: " + a.comment()}
}

// badLine is the break that the first line of lines is, which the wire does not
// allow.
func badLine(lines []byte, err error) *Break {
	line, _, _ := bytes.Cut(lines, []byte{'\n'})
	return &Break{Kind: Protocol, Reason: fmt.Sprintf("bad line %.60q", line), Err: err}
}
