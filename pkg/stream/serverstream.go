package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/request-migration/migrate/pkg/stream/internal/misbehave"
)

// errLate is why nothing more can be sent once the request's time is over.
var errLate = fmt.Errorf("%w: %w", errTimeOver, context.DeadlineExceeded)

// serverStream is one request that a server has taken.
type serverStream struct {
	c      *serverConn
	number int64
	prefix []byte // how its lines begin
	req    Request
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer // of the request's deadline; nil without one
	alone  bool        // it has a goroutine of its own

	// Guarded by c.w.mu.
	next    int   // index of the next item
	credit  int32 // bytes of lines that the client is ready for
	done    bool  // the last line was added, or nobody wants one
	late    bool  // the request's time is over
	turn    waiter
	blocked int64 // since when a send is waiting, in ns since 1970; 0 if none is
}

// begin takes a request that came at the given time, or refuses it and returns
// nil.
func (c *serverConn) begin(number int64, req Request, came time.Time) *serverStream {
	st := &serverStream{
		c: c, number: number, prefix: appendPrefix(make([]byte, 0, 32), number),
		req: req, next: req.From, credit: initialCredit,
	}
	st.turn.init(&c.w.mu)
	taken := false
	err := errPanicked // unless Admit returns
	defer func() {
		if !taken {
			st.refuse(err)
		}
	}()
	if err = c.reserve(&st.turn); err == nil {
		err = errPanicked
		err = c.srv.admit(req)
	}
	if err != nil {
		return nil
	}
	taken = true
	c.srv.logRequest("request taken", st, nil)
	st.ctx, st.cancel = context.WithCancelCause(c.ctx)
	if req.Timeout > 0 {
		st.limit(came.Add(req.Timeout))
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.streams[number] = st
	c.w.sharers = len(c.streams)
	c.startTicks()
	return st
}

// reserve counts one more request on the connection, as soon as the client has
// read enough to be answered.
func (c *serverConn) reserve(q *waiter) error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.waitRoom(q)
	c.w.passOn(q)
	c.running++ // also if it is refused, until it was told so
	if limit := cmpOr(c.srv.MaxConnStreams, DefaultMaxConnStreams); c.running > limit {
		return fmt.Errorf("%w: %d streams run on this connection, its limit", ErrOverloaded, limit)
	}
	return nil
}

// refuse adds the line that refuses a request.
func (st *serverStream) refuse(err error) {
	defer func() { // also if Refused panics
		st.c.w.mu.Lock()
		defer st.c.w.mu.Unlock()
		st.c.over()
		st.last(err)
	}()
	st.c.srv.logRequest("request refused", st, err)
	st.c.srv.tellRefused(st.req, err)
}

// limit ends the stream's context at a deadline, and with it a send that waits.
func (st *serverStream) limit(deadline time.Time) {
	st.ctx = timedContext{st.ctx, deadline}
	st.timer = time.AfterFunc(time.Until(deadline), func() {
		st.cancel(context.DeadlineExceeded)
		st.c.w.mu.Lock()
		defer st.c.w.mu.Unlock()
		st.late = true
		st.turn.wake.Signal()
	})
}

// timedContext is a context that its owner cancels at a deadline. It needs one
// timer and one context, where a context with a deadline below one with a cause
// would need two of each.
type timedContext struct {
	context.Context
	deadline time.Time
}

func (c timedContext) Deadline() (time.Time, bool) { return c.deadline, true }

func (c timedContext) Err() error {
	err := c.Context.Err()
	if err != nil && errors.Is(context.Cause(c.Context), context.DeadlineExceeded) {
		return context.DeadlineExceeded
	}
	return err
}

// run calls the handler and ends the stream as it says.
func (st *serverStream) run() {
	err := errPanicked // unless the handler returns
	defer st.returned(&err)
	st.start()
	err = st.c.srv.Handler(st.ctx, &st.req, func(a Annotated) error { return st.send(&a) })
}

// returned ends the stream of a handler that has returned, with *err, or has
// panicked.
func (st *serverStream) returned(err *error) {
	if st.alone {
		defer st.c.handlers.Done()
	}
	if v := recover(); *err == errPanicked { //nolint:errorlint // it is the very value
		st.panicked(v)
	}
	st.finish(*err)
}

// panicked is apart because of the stack that it needs, which would have to grow
// for each handler.
//
//go:noinline
func (st *serverStream) panicked(v any) { st.c.srv.survived("Handler", st.req, v) }

// finish ends the stream after its handler has returned, and gives its place
// back.
func (st *serverStream) finish(err error) {
	st.c.srv.logRequest("request over", st, err)
	if errors.Is(err, context.DeadlineExceeded) && errors.Is(st.ctx.Err(), context.DeadlineExceeded) {
		err = errTimeOver
	}
	w := &st.c.w
	w.mu.Lock()
	if !st.done {
		st.last(err)
	}
	w.passOn(&st.turn)
	alone := len(st.c.streams) == 1
	st.free()
	st.c.over()
	st.c.srv.release() // before the client sees the last line and can ask again
	if alone && len(w.buf) <= surelyFits {
		w.writeNow() // with other streams, the writer takes their lines along
	}
	w.mu.Unlock()
	if st.timer != nil {
		st.timer.Stop()
	}
	st.cancel(nil)
}

// start says that the request is taken. It runs in the handler's goroutine: the
// writer, which it wakes, then also finds the first items.
func (st *serverStream) start() {
	w := &st.c.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if !st.done && w.open() {
		// With room for the first item too: the buffer grows here, where the
		// stack is low, and not below the handler's frames.
		st.add(appendIndexEvent(slices.Grow(w.buf, fewBytes), st.prefix, eventStart, st.req.From))
	}
}

// send adds an item's line as soon as the client and the connection have room.
func (st *serverStream) send(a *Annotated) error {
	if err := checkItem(a); err != nil {
		return err
	}
	w := &st.c.w
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		switch {
		case st.done || w.err != nil || w.closing:
			w.passOn(&st.turn)
			return errOver
		case st.late:
			w.passOn(&st.turn)
			return errLate
		case w.muted || st.credit <= 0 && st.number != unnumbered:
			w.passOn(&st.turn)
			st.block()
			st.turn.wake.Wait()
			st.unblock()
		case !w.mayAdd(&st.turn):
			st.block()
			w.turns.wait(&st.turn)
			st.unblock()
		default:
			buf, err := appendItem(w.buf, st.prefix, a)
			if err != nil {
				w.passOn(&st.turn)
				return err
			}
			st.next++
			st.add(buf)
			return nil
		}
	}
}

// checkItem returns what keeps a from being sent, and puts its data on one line.
// It is a function of its own so that a send takes little stack.
func checkItem(a *Annotated) error {
	if isControl(a.Event) {
		return fmt.Errorf("sending an item: event %q is not for items", a.Event)
	}
	data, err := onOneLine(a.Data)
	if err != nil {
		return fmt.Errorf("sending an item: %w", err)
	}
	a.Data = data
	return nil
}

// block notes that a send has begun to wait. The caller holds w.mu.
func (st *serverStream) block() {
	if st.blocked == 0 {
		st.blocked = time.Now().UnixNano()
	}
	st.c.blocked++
}

// unblock notes that a send was woken. The caller holds w.mu.
func (st *serverStream) unblock() { st.c.blocked-- }

// add takes the writer's buffer back, with a line of the stream added. The
// caller holds w.mu.
func (st *serverStream) add(buf []byte) {
	w := &st.c.w
	n := len(buf) - len(w.buf)
	st.credit -= int32(n)
	st.blocked = 0
	w.buf = buf
	w.addedBy(&st.turn, n)
}

// abandon makes sends fail from now on. The caller holds w.mu.
func (st *serverStream) abandon() {
	st.done = true
	st.turn.wake.Signal()
}

// free lets the client reuse the stream's number. The stream keeps its place
// until the handler has returned. The caller holds w.mu.
func (st *serverStream) free() {
	if st.c.streams[st.number] == st {
		delete(st.c.streams, st.number)
		st.c.w.sharers = len(st.c.streams)
	}
}

// giveUp ends a running stream with the line that err asks for. The caller
// holds w.mu.
func (st *serverStream) giveUp(err error) {
	if !st.done {
		st.last(err)
	}
	st.free()
	st.cancel(err)
}

// cancelStream ends a stream that the client no longer wants.
func (c *serverConn) cancelStream(number int64) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if st := c.streams[number]; st != nil {
		st.abandon()
		st.giveUp(ErrCancelled)
	}
}

// grant lets a stream send n more bytes of lines.
func (c *serverConn) grant(number int64, n int) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if st := c.streams[number]; st != nil {
		// A sum beyond any use is the client's mistake, but must not overflow.
		st.credit = min(st.credit+int32(min(n, 1<<29)), 1<<29)
		if st.turn.queue == nil { // else it waits for its turn, and keeps its place
			st.turn.wake.Signal()
		}
	}
}

// errTimeOver is the error of a request whose Timeout has passed.
var errTimeOver = errors.New("the request's time is over")

// last adds the line that err asks for and ends the stream. The caller holds
// w.mu.
func (st *serverStream) last(err error) {
	if m, ok := errors.AsType[*misbehave.Error](err); ok {
		st.misbehave(m)
		return
	}
	if st.c.w.open() {
		st.add(st.appendLast(st.c.w.buf, err))
	}
	st.abandon()
}

// misbehave does what package fault asks in place of ending the stream. The caller
// holds w.mu.
func (st *serverStream) misbehave(m *misbehave.Error) {
	w := &st.c.w
	if !w.open() {
		st.abandon()
		return
	}
	if m.Last != nil {
		st.add(m.Last(w.buf, st.prefix, st.next))
	}
	switch m.Then {
	case misbehave.FallSilent:
		w.muted = true // the stream stays as it is
		return
	case misbehave.Close:
		st.c.onClose = m.OnClose
		w.finish()
	case misbehave.GoOn:
	}
	st.abandon()
}

// appendLast appends the last line of a stream that ends with err.
func (st *serverStream) appendLast(dst []byte, err error) []byte {
	if err == nil {
		return appendIndexEvent(dst, st.prefix, eventEnd, st.next)
	}
	begun := st.next > st.req.From // too late to refuse
	text := err.Error()
	switch {
	case errors.Is(err, ErrDraining):
		return appendEvent(dst, st.prefix, eventDraining, text)
	case errors.Is(err, Misdirected) && !begun:
		return appendEvent(dst, st.prefix, eventMisdirected, text)
	case errors.Is(err, ErrUnresumable) && !begun:
		return appendEvent(dst, st.prefix, eventUnresumable, text)
	case errors.Is(err, ErrOverloaded) && !begun:
		return appendControl(dst, st.prefix, eventOverloaded, retryAfterData(err), text)
	case isRefusal(err), errors.Is(err, ErrFailedUnreported):
		return appendControl(dst, st.prefix, eventError, json.RawMessage(`{"report":false}`), failedComments(err, ErrFailedUnreported)...)
	case errors.Is(err, ErrFailedSilent):
		return appendControl(dst, st.prefix, eventError, json.RawMessage(`{"silent":true}`), failedComments(err, ErrFailedSilent)...)
	case errors.Is(err, ErrFailed):
		return appendControl(dst, st.prefix, eventError, nil, failedComments(err, ErrFailed)...)
	}
	var data json.RawMessage
	if e, ok := errors.AsType[*Error](err); ok {
		data = e.Data
	}
	if text == "" {
		return appendControl(dst, st.prefix, eventError, data)
	}
	return appendControl(dst, st.prefix, eventError, data, text)
}

// failedComments returns the comments of the line that makes the client carry on
// elsewhere: the fixed text, and err's own text if it says more than bare.
func failedComments(err, bare error) []string {
	if text := err.Error(); text != bare.Error() {
		return []string{failedText, text}
	}
	return []string{failedText}
}

// retryAfterData returns the data with which an overloaded server says when to
// come back.
func retryAfterData(err error) json.RawMessage {
	o, ok := errors.AsType[overloadedFor](err)
	if !ok || o.d <= 0 {
		return nil
	}
	return fmt.Appendf(nil, `{"retry_after_ms":%d}`, max(o.d.Round(time.Millisecond).Milliseconds(), 1))
}
