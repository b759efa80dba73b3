package stream

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
)

// FaultMode says which requests of a server fail, counted from 1 in the order
// in which they are taken. The zero value is [FaultNever].
type FaultMode struct {
	first, last uint64
}

// The fault modes that have names.
//
//nolint:gochecknoglobals // as constant as a struct can be
var (
	FaultNever  = FaultMode{}
	FaultFirst  = FaultMode{1, 1}
	FaultAlways = FaultMode{1, 1<<64 - 1}
)

// FaultModeNames are the words that [ParseFaultMode] takes beside numbers.
func FaultModeNames() []string { return []string{"never", "first", "always"} }

// ParseFaultMode reads a mode: never, first, always, the number of the one
// request that fails ("3"), or a range of them ("2-4").
func ParseFaultMode(s string) (FaultMode, error) {
	switch s {
	case "never":
		return FaultNever, nil
	case "first":
		return FaultFirst, nil
	case "always":
		return FaultAlways, nil
	}
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	a, errA := strconv.ParseUint(first, 10, 64)
	b, errB := strconv.ParseUint(last, 10, 64)
	if errA != nil || errB != nil || a == 0 || b < a {
		return FaultMode{}, fmt.Errorf("unknown failure mode %q: valid are %s, a request's number (3) or a range (2-4)",
			s, strings.Join(FaultModeNames(), ", "))
	}
	return FaultMode{a, b}, nil
}

// String describes the mode in words.
func (m FaultMode) String() string {
	switch {
	case m == FaultNever:
		return "never"
	case m == FaultFirst:
		return "first request only"
	case m == FaultAlways:
		return "always"
	case m.first == m.last:
		return fmt.Sprintf("request %d only", m.first)
	}
	return fmt.Sprintf("requests %d to %d", m.first, m.last)
}

func (m FaultMode) hits(n uint64) bool { return m.first <= n && n <= m.last }

// FaultKind says how a request fails. Whatever is done to the connection is
// done to the other streams on it too.
type FaultKind string

// The fault kinds, and what the client sees of each.
const (
	FaultError    FaultKind = "error"     // an error line: Failed
	FaultClose    FaultKind = "close"     // the connection closes: Truncated
	FaultReset    FaultKind = "reset"     // the connection is torn down: Reset
	FaultStall    FaultKind = "stall"     // the connection falls silent: Stalled
	FaultGarbage  FaultKind = "garbage"   // bytes that are no JSON: Protocol
	FaultHalfLine FaultKind = "half-line" // half an item, then a close: Truncated
	FaultNoEnd    FaultKind = "no-end"    // all items, then a close: Truncated
	FaultBadCount FaultKind = "bad-count" // all items, then a wrong count: Protocol
	FaultRefuse   FaultKind = "refuse"    // a close in place of the start: Truncated
	FaultOverload FaultKind = "overload"  // refused as overloaded: Overloaded
	FaultExit     FaultKind = "exit"      // the process ends: Truncated or Reset
)

// FaultKinds returns all kinds.
func FaultKinds() []FaultKind {
	return []FaultKind{
		FaultError, FaultClose, FaultReset, FaultStall, FaultGarbage, FaultHalfLine,
		FaultNoEnd, FaultBadCount, FaultRefuse, FaultOverload, FaultExit,
	}
}

// ParseFaultKind reads a kind by its name.
func ParseFaultKind(s string) (FaultKind, error) {
	names := make([]string, 0, len(FaultKinds()))
	for _, k := range FaultKinds() {
		if s == string(k) {
			return k, nil
		}
		names = append(names, string(k))
	}
	return "", fmt.Errorf("unknown failure kind %q: valid are %s", s, strings.Join(names, ", "))
}

// Fault is what an [Injector] does to a handler.
type Fault struct {
	Mode FaultMode
	Kind FaultKind // "" is FaultError
	// After is how many items a failing request sends first. One that has no
	// more items than that completes, whatever the kind.
	After int
	// Notify, if set, is called when a fault shows, before the client can see
	// it. It may be called for many requests at once.
	Notify func(f Fault)
}

// Injector makes a handler fail on purpose, the same way at every run: use its
// Handle and Admit as a [Server]'s. It is safe for concurrent use.
type Injector struct {
	fault   Fault
	handler Handler
	// requests counts those that Admit has seen or, where the fault shows
	// later, those that Handle has begun.
	requests atomic.Uint64
}

// Inject wraps h. What h does apart from the fault stays as it is.
func Inject(h Handler, f Fault) *Injector {
	if f.Kind == "" {
		f.Kind = FaultError
	}
	return &Injector{fault: f, handler: h}
}

// misbehaviour is the error with which an injector makes the server itself
// break the rules of the wire.
type misbehaviour struct{ kind FaultKind }

func (m misbehaviour) Error() string { return "simulated fault: " + string(m.kind) }

// Is reports whether target is [ErrBroken]: it is one more way to break.
func (m misbehaviour) Is(target error) bool { return target == ErrBroken }

var errFaulty = errors.New("simulated fault")

// Admit refuses a request where the fault does.
func (i *Injector) Admit(Request) error {
	if !i.refuses() || !i.fault.Mode.hits(i.requests.Add(1)) {
		return nil
	}
	i.notify()
	if i.fault.Kind == FaultOverload {
		return fmt.Errorf("%w: %w", ErrOverloaded, errFaulty)
	}
	return misbehaviour{i.fault.Kind}
}

// Handle answers a request through the wrapped handler, and breaks the answer
// where the fault does.
func (i *Injector) Handle(ctx context.Context, req *Request, send func(Annotated) error) error {
	if i.refuses() || !i.fault.Mode.hits(i.requests.Add(1)) {
		return i.handler(ctx, req, send)
	}
	atEnd := i.fault.Kind == FaultNoEnd || i.fault.Kind == FaultBadCount
	sent, shows := 0, false
	err := i.handler(ctx, req, func(a Annotated) error {
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
	if i.fault.Kind == FaultError {
		return ErrBroken
	}
	return misbehaviour{i.fault.Kind}
}

func (i *Injector) refuses() bool {
	return i.fault.Kind == FaultRefuse || i.fault.Kind == FaultOverload
}

func (i *Injector) notify() {
	if i.fault.Notify != nil {
		i.fault.Notify(i.fault)
	}
}

// misbehave ends a stream as a fault asks. The caller holds w.mu.
func (st *serverStream) misbehave(kind FaultKind) {
	w := &st.c.w
	if !w.open() {
		st.abandon()
		return
	}
	switch kind {
	case FaultBadCount:
		st.add(appendIndexEvent(w.buf, st.prefix, eventEnd, st.next+1))
		st.abandon()
		return
	case FaultStall:
		w.muted = true
		return
	case FaultGarbage:
		w.buf = append(w.buf, "\x00\xff}{ no JSON \xfe\n"...)
	case FaultHalfLine:
		w.buf = append(append(w.buf, st.prefix...), `"data":"from server: `...)
	case FaultReset:
		st.c.ending = endRST
	case FaultExit:
		st.c.ending = endExit
	default: // the close alone
	}
	w.finish()
	st.abandon()
}

// exit ends the process as a crash would: without a word, nothing cleaned up.
func exit() { os.Exit(1) } //nolint:forbidigo // the fault that was asked for
