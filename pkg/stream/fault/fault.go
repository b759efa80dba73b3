// Package fault makes a server fail on purpose, the same way at every run, for
// tests and demonstrations of what a client makes of it.
//
//	i := fault.Inject(handler, fault.Fault{Mode: fault.First, Kind: fault.Close, After: 2})
//	server := &stream.Server{Handler: i.Handle, Admit: i.Admit}
package fault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/internal/misbehave"
)

// Mode says which requests of a server fail, counted from 1 in the order in
// which they are taken. The zero value is [Never].
type Mode struct {
	first, last uint64
}

// The fault modes that have names.
//
//nolint:gochecknoglobals // as constant as a struct can be
var (
	Never  = Mode{}
	First  = Mode{1, 1}
	Always = Mode{1, 1<<64 - 1}
)

// ModeNames returns the words that [ParseMode] accepts besides numbers.
func ModeNames() []string { return []string{"never", "first", "always"} }

// ParseMode parses a mode: never, first, always, the number of the one request
// that fails ("3"), or a range of them ("2-4").
func ParseMode(s string) (Mode, error) {
	switch s {
	case "never":
		return Never, nil
	case "first":
		return First, nil
	case "always":
		return Always, nil
	}
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	a, errA := strconv.ParseUint(first, 10, 64)
	b, errB := strconv.ParseUint(last, 10, 64)
	if errA != nil || errB != nil || a == 0 || b < a {
		return Mode{}, fmt.Errorf("unknown failure mode %q: valid are %s, a request's number (3) or a range (2-4)",
			s, strings.Join(ModeNames(), ", "))
	}
	return Mode{a, b}, nil
}

// String describes the mode in words.
func (m Mode) String() string {
	switch {
	case m == Never:
		return "never"
	case m == First:
		return "first request only"
	case m == Always:
		return "always"
	case m.first == m.last:
		return fmt.Sprintf("request %d only", m.first)
	}
	return fmt.Sprintf("requests %d to %d", m.first, m.last)
}

func (m Mode) hits(n uint64) bool { return m.first <= n && n <= m.last }

// Kind says how a request fails. What is done to the connection affects the
// other streams on it too.
type Kind string

// The fault kinds, and what the client sees of each.
const (
	Error    Kind = "error"     // an error line: Failed
	Close    Kind = "close"     // the connection closes: Truncated
	Reset    Kind = "reset"     // the connection is torn down: Reset
	Stall    Kind = "stall"     // the connection falls silent: Stalled
	Garbage  Kind = "garbage"   // bytes that are no JSON: Protocol
	HalfLine Kind = "half-line" // half an item, then a close: Truncated
	NoEnd    Kind = "no-end"    // all items, then a close: Truncated
	BadCount Kind = "bad-count" // all items, then a wrong count: Protocol
	Refuse   Kind = "refuse"    // a close in place of the start: Truncated
	Overload Kind = "overload"  // refused as overloaded: Overloaded
	Exit     Kind = "exit"      // the process ends: Truncated or Reset
)

// Kinds returns all kinds.
func Kinds() []Kind {
	return []Kind{
		Error, Close, Reset, Stall, Garbage, HalfLine,
		NoEnd, BadCount, Refuse, Overload, Exit,
	}
}

// ParseKind parses the name of a kind.
func ParseKind(s string) (Kind, error) {
	names := make([]string, 0, len(Kinds()))
	for _, k := range Kinds() {
		if s == string(k) {
			return k, nil
		}
		names = append(names, string(k))
	}
	return "", fmt.Errorf("unknown failure kind %q: valid are %s", s, strings.Join(names, ", "))
}

// Fault is what an [Injector] does to a handler.
type Fault struct {
	Mode Mode
	Kind Kind // "" means Error
	// After is how many items a failing request sends first. A request without
	// more items than that completes, whatever the kind.
	After int
	// Notify, if set, is called when a fault shows, before the client can see it.
	// It may be called for many requests at once.
	Notify func(f Fault)
}

// Injector makes a handler fail on purpose, the same way at every run. Its
// Handle and Admit are for the fields of a [stream.Server]. It is safe for
// concurrent use.
type Injector struct {
	fault   Fault
	handler stream.Handler
	// requests counts the requests that Admit has seen or, if the fault shows
	// later, those that Handle has begun.
	requests atomic.Uint64
}

// Inject wraps h. Apart from the fault, h behaves as before.
func Inject(h stream.Handler, f Fault) *Injector {
	if f.Kind == "" {
		f.Kind = Error
	}
	return &Injector{fault: f, handler: h}
}

var errFaulty = errors.New("simulated fault")

// Admit refuses a request if the fault does. It is for [stream.Server.Admit].
func (i *Injector) Admit(stream.Request) error {
	if !i.refuses() || !i.fault.Mode.hits(i.requests.Add(1)) {
		return nil
	}
	i.notify()
	if i.fault.Kind == Overload {
		return fmt.Errorf("%w: %w", stream.ErrOverloaded, errFaulty)
	}
	return misbehaviour(i.fault.Kind)
}

// Handle answers a request through the wrapped handler, and breaks the answer
// if the fault does. It is for [stream.Server.Handler].
func (i *Injector) Handle(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
	if i.refuses() || !i.fault.Mode.hits(i.requests.Add(1)) {
		return i.handler(ctx, req, send)
	}
	atEnd := i.fault.Kind == NoEnd || i.fault.Kind == BadCount
	sent, shows := 0, false
	err := i.handler(ctx, req, func(a stream.Annotated) error {
		if sent >= i.fault.After && !atEnd {
			shows = true
			return errFaulty
		}
		sent++
		return send(a)
	})
	if atEnd {
		shows = err == nil && sent > i.fault.After
	}
	if !shows {
		return err
	}
	i.notify()
	if i.fault.Kind == Error {
		return stream.ErrFailed
	}
	return misbehaviour(i.fault.Kind)
}

func (i *Injector) refuses() bool {
	return i.fault.Kind == Refuse || i.fault.Kind == Overload
}

func (i *Injector) notify() {
	if i.fault.Notify != nil {
		i.fault.Notify(i.fault)
	}
}

// simulated is the text of a misbehaviour, which is one more way to fail.
type simulated Kind

func (s simulated) Error() string { return "simulated fault: " + string(s) }

func (simulated) Unwrap() error { return stream.ErrFailed }

// misbehaviour returns the error that makes the server itself break the rules of
// the wire.
func misbehaviour(kind Kind) error {
	m := &misbehave.Error{Err: simulated(kind), Then: misbehave.Close}
	switch kind {
	case BadCount:
		m.Then = misbehave.GoOn
		m.Last = func(dst, prefix []byte, items int) []byte {
			return fmt.Appendf(append(dst, prefix...), `"event":"end","id":"%d"}`+"\n", items+1)
		}
	case Stall:
		m.Then = misbehave.FallSilent
	case Garbage:
		m.Last = func(dst, _ []byte, _ int) []byte { return append(dst, "\x00\xff}{ no JSON \xfe\n"...) }
	case HalfLine:
		m.Last = func(dst, prefix []byte, _ int) []byte { return append(append(dst, prefix...), `"data":"half an it`...) }
	case Reset:
		m.OnClose = reset
	case Exit:
		m.OnClose = exit
	case Error, Close, NoEnd, Refuse, Overload: // the close alone
	}
	return m
}

// reset makes the close of a connection over TCP, or over what is like it, send a reset.
func reset(conn net.Conn) {
	if tcp, ok := conn.(interface{ SetLinger(sec int) error }); ok {
		_ = tcp.SetLinger(0) // best effort: the close breaks the stream in any case
	}
}

// exit ends the process as a crash would, with nothing cleaned up.
func exit(net.Conn) { os.Exit(1) } //nolint:forbidigo // the fault that was asked for
