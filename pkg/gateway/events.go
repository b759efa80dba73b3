package gateway

import (
	"encoding/json"
	"math"
	"net/http"
	"sync"
	"time"
)

// events writes server-sent events, and a ping when nothing was written for a while.
type events struct {
	w   http.ResponseWriter
	out *http.ResponseController

	pinging *time.Timer // nil if nothing is to ping

	mu    sync.Mutex // guards what follows, and the writing
	begun bool
	ended bool
	wrote time.Time
	limit time.Time // of the write deadline that is set
	buf   []byte
}

// newEvents returns the events of an answer. They ping until end is called, if the client waits
// for a stream.
func newEvents(w http.ResponseWriter, q *query) *events {
	e := &events{w: w, out: http.NewResponseController(w), wrote: time.Now()}
	if q.streamed {
		e.pinging = time.AfterFunc(math.MaxInt64, e.ping)
		e.pinging.Reset(pingEvery) // not before pinging is set
	}
	return e
}

// ping is called by the timer. It does not set that anew for each event: it looks at when
// something was last written.
func (e *events) ping() {
	if !e.mu.TryLock() {
		e.pinging.Reset(pingEvery) // something is being written
		return
	}
	defer e.mu.Unlock()
	if e.ended {
		return
	}
	next := time.Until(e.wrote.Add(pingEvery))
	if next <= 0 {
		_ = e.writeLocked([]byte(": ping\n\n")) // what comes next says that the client has gone
		next = pingEvery
	}
	e.pinging.Reset(next)
}

// end ends the pings. Nothing is written behind it.
func (e *events) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
	if e.pinging != nil {
		e.pinging.Stop()
	}
}

// stopPinging ends the pings, and reports whether the status has gone out.
func (e *events) stopPinging() (begun bool) {
	e.end()
	return e.hasBegun()
}

// from says which instance answers, as long as that can be said.
func (e *events) from(instance string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.begun {
		e.w.Header().Set("X-Migrate-Instance", instance)
	}
}

// hasBegun reports whether the status has gone out.
func (e *events) hasBegun() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.begun
}

// write sends bytes at once.
func (e *events) write(b []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.writeLocked(b)
}

func (e *events) writeLocked(b []byte) error {
	if !e.begun {
		e.begun = true
		h := e.w.Header()
		h.Set("Content-Type", "text/event-stream; charset=utf-8")
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Accel-Buffering", "no") // nginx would collect events
		e.w.WriteHeader(http.StatusOK)
	}
	e.wrote = time.Now()
	if e.limit.Sub(e.wrote) < writeTimeout/2 { // not for each event: that takes as long as the write
		e.limit = e.wrote.Add(writeTimeout)
		_ = e.out.SetWriteDeadline(e.limit) // where there is none, the server has others
	}
	if _, err := e.w.Write(b); err != nil {
		return err
	}
	return e.out.Flush()
}

// data sends an event.
func (e *events) data(data json.RawMessage) error {
	e.buf = append(append(append(e.buf[:0], "data: "...), data...), "\n\n"...)
	return e.write(e.buf)
}

// comment sends a comment, which clients skip.
func (e *events) comment(text []byte) error {
	e.buf = append(append(append(e.buf[:0], ": "...), text...), "\n\n"...)
	return e.write(e.buf)
}
