package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// serverStream is one request that a server has taken.
type serverStream struct {
	c      *serverConn
	number int64
	prefix []byte // how its lines begin
	req    Request
	ctx    context.Context
	cancel context.CancelCauseFunc

	// Guarded by c.w.mu.
	next   int  // index of the next item
	credit int  // bytes of lines that the client is ready for
	done   bool // the last line was added, or nobody wants it
	more   sync.Cond
}

// begin takes a request, or refuses it and returns nil.
func (c *serverConn) begin(number int64, req Request) *serverStream {
	st := &serverStream{
		c: c, number: number, prefix: appendPrefix(make([]byte, 0, 32), number),
		req: req, next: req.From, credit: initialCredit,
	}
	st.more.L = &c.w.mu
	c.w.mu.Lock()
	c.waitRoom()
	c.w.mu.Unlock()
	if err := c.srv.admit(req); err != nil {
		c.srv.logRequest("request refused", st, err)
		if c.srv.Refused != nil {
			c.srv.Refused(req, err)
		}
		c.w.mu.Lock()
		defer c.w.mu.Unlock()
		st.refuse(err)
		return nil
	}
	c.srv.logRequest("request taken", st, nil)
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	st.ctx, st.cancel = context.WithCancelCause(c.ctx)
	c.streams[number] = st
	c.w.sharers = len(c.streams)
	c.startPings()
	return st
}

// run calls the handler and ends the stream as the handler says.
func (st *serverStream) run() {
	st.start()
	err := st.c.srv.Handler(st.ctx, st.req, func(a Annotated) error { return st.send(&a) })
	st.c.srv.logRequest("request over", st, err)
	st.c.w.mu.Lock()
	if !st.done {
		st.last(err)
	}
	alone := len(st.c.streams) == 1
	st.leave()
	if alone && len(st.c.w.buf) <= surelyFits {
		st.c.w.writeNow() // with others, the writer takes their lines along
	}
	st.c.w.mu.Unlock()
	st.cancel(nil)
}

// start says that the request is taken. It is for the handler's goroutine: the
// writer, which is woken here, then finds the first items there as well.
func (st *serverStream) start() {
	w := &st.c.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if !st.done && w.open() {
		st.add(appendIndexEvent(w.buf, st.prefix, eventStart, st.req.From))
	}
}

// send adds an item's line as soon as the client and the connection have room.
func (st *serverStream) send(a *Annotated) error {
	if isControl(a.Event) {
		return fmt.Errorf("sending an item: event %q is not for items", a.Event)
	}
	data, err := onOneLine(a.Data)
	if err != nil {
		return fmt.Errorf("sending an item: %w", err)
	}
	a.Data = data
	w := &st.c.w
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		switch {
		case st.done || w.err != nil || w.closing:
			return errOver
		case w.muted || st.credit <= 0 && st.number != unnumbered:
			st.more.Wait()
		case w.full():
			w.waitRoom()
		default:
			buf, err := appendItem(w.buf, st.prefix, a)
			if err != nil {
				return err
			}
			st.next++
			st.add(buf)
			return nil
		}
	}
}

// add takes the writer's buffer back with a line of the stream's in it. The
// caller holds w.mu.
func (st *serverStream) add(buf []byte) {
	st.credit -= len(buf) - len(st.c.w.buf)
	st.c.w.buf = buf
	st.c.w.added()
}

// last adds the line that err asks for and ends the stream. The caller holds w.mu.
func (st *serverStream) last(err error) {
	if fault, ok := errors.AsType[misbehaviour](err); ok {
		st.misbehave(fault.kind)
		return
	}
	if st.c.w.open() {
		buf := st.c.w.buf
		switch {
		case err == nil:
			buf = appendIndexEvent(buf, st.prefix, eventEnd, st.next)
		case errors.Is(err, ErrDraining):
			buf = appendEvent(buf, st.prefix, eventDraining, err.Error())
		case errors.Is(err, ErrBroken):
			buf = appendEvent(buf, st.prefix, eventError, brokenText)
		default:
			buf = appendEvent(buf, st.prefix, eventError, err.Error())
		}
		st.add(buf)
	}
	st.abandon()
}

// refuse adds the line with which a request is not taken. The caller holds w.mu.
func (st *serverStream) refuse(err error) {
	if errors.Is(err, ErrOverloaded) && st.c.w.open() {
		st.add(appendEvent(st.c.w.buf, st.prefix, eventOverloaded, err.Error()))
		return
	}
	st.last(err)
}

// abandon lets nothing more be sent. The caller holds w.mu.
func (st *serverStream) abandon() {
	st.done = true
	st.more.Broadcast()
	st.c.w.room.Broadcast()
}

// leave gives the stream's number and place free, once. The caller holds w.mu.
func (st *serverStream) leave() {
	if st.c.streams[st.number] == st {
		delete(st.c.streams, st.number)
		st.c.w.sharers = len(st.c.streams)
		st.c.srv.release()
	}
}

// cancelStream ends a stream that the client no longer wants.
func (c *serverConn) cancelStream(number int64) {
	c.w.mu.Lock()
	st := c.streams[number]
	if st != nil {
		st.abandon()
		st.leave() // now: the handler may take its time to return
	}
	c.w.mu.Unlock()
	if st != nil {
		st.cancel(errCancelled)
	}
}

// grant lets a stream send n bytes of lines more.
func (c *serverConn) grant(number int64, n int) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if st := c.streams[number]; st != nil {
		// A sum beyond any use is the client's mistake; it must not wrap.
		st.credit = min(st.credit+min(n, 1<<29), 1<<29)
		st.more.Signal()
	}
}
