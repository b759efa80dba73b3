// Package misbehave lets package fault make a server break the rules of the
// wire. It is internal so that package stream exports nothing for that.
package misbehave

import "net"

// Error is an error of a handler, or of a server's Admit, that makes the server
// misbehave in place of ending the stream.
type Error struct {
	// Err is what the error says and wraps.
	Err error
	// Last appends to dst what is sent in place of the stream's last line. A
	// line of the stream begins with prefix; items is the index of the next item. Nil
	// sends nothing.
	Last func(dst, prefix []byte, items int) []byte
	// Then is what happens to the connection after that.
	Then Then
	// OnClose, if set, is called right before the connection is closed. It is for
	// [Close].
	OnClose func(net.Conn)
}

// Then says what happens to a connection on which a server has misbehaved.
type Then int

const (
	// GoOn keeps the connection as it is.
	GoOn Then = iota
	// FallSilent keeps the connection open and sends nothing more.
	FallSilent
	// Close closes the connection.
	Close
)

// Error returns Err's text.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }
