package stream

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// errTimeOver is what a request is told whose Timeout has passed.
var errTimeOver = errors.New("the request's time is over")

// last adds the line that err asks for and ends the stream. The caller holds w.mu.
func (st *serverStream) last(err error) {
	if fault, ok := errors.AsType[misbehaviour](err); ok {
		st.misbehave(fault.kind)
		return
	}
	if st.c.w.open() {
		st.add(st.appendLast(st.c.w.buf, err))
	}
	st.abandon()
}

// appendLast appends the line with which a stream ends that ends with err.
func (st *serverStream) appendLast(dst []byte, err error) []byte {
	if err == nil {
		return appendIndexEvent(dst, st.prefix, eventEnd, st.next)
	}
	begun := st.next > st.req.From // then it is too late to refuse
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
	case isRefusal(err), errors.Is(err, ErrBrokenUnreported):
		return appendControl(dst, st.prefix, eventError, json.RawMessage(`{"report":false}`), broken(err, ErrBrokenUnreported)...)
	case errors.Is(err, ErrBroken):
		return appendControl(dst, st.prefix, eventError, nil, broken(err, ErrBroken)...)
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

// broken returns the comments of the line that makes the client carry on
// elsewhere: the fixed text, and if err says more than bare does, its own.
func broken(err, bare error) []string {
	if text := err.Error(); text != bare.Error() {
		return []string{brokenText, text}
	}
	return []string{brokenText}
}

// retryAfterData returns the data with which an overloaded server says for how long.
func retryAfterData(err error) json.RawMessage {
	o, ok := errors.AsType[overloadedFor](err)
	if !ok || o.d <= 0 {
		return nil
	}
	return fmt.Appendf(nil, `{"retry_after_ms":%d}`, max(o.d.Round(time.Millisecond).Milliseconds(), 1))
}
