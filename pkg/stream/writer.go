package stream

import (
	"net"
	"runtime"
	"sync"
	"time"
)

const (
	// maxPending is how many bytes of lines may wait for the socket before adding
	// more has to wait too. A write of this size costs little more than a small
	// one; a larger one gains nothing.
	maxPending = 64 << 10
	// keepBuffer is the largest buffer that is kept for later lines; one that a
	// long line has grown is freed.
	keepBuffer = 2 * maxPending
	// longPiece is how much of a longer buffer is written at a time, so that
	// progress shows on a slow network.
	longPiece = 16 << 10
	// fewBytes is too little for a write to be worth its system call.
	fewBytes = 1 << 10
	// surelyFits is less than the smallest send buffer that any system gives a
	// socket.
	surelyFits = 4 << 10
	// lingerTime is how long a closing connection waits for the other end to take
	// the last lines and to close its side.
	lingerTime = time.Second
)

// lineWriter lets many goroutines add whole lines to a connection; one
// goroutine, in run, writes them. A line goes out as soon as the socket is
// free; lines that are added during a write go out together in the next. A
// goroutine that has nothing else to do may write itself.
//
// mu guards everything below it. The streams of a connection keep their sending
// state under the same lock, so adding a line takes it once.
type lineWriter struct {
	conn net.Conn

	mu      sync.Mutex
	buf     []byte // lines that wait for the socket
	spare   []byte // what the last write left behind, for reuse
	err     error  // why nothing is written any more; set once
	closing bool   // write what is there, then stop
	muted   bool   // write what is there, then fall silent: an injected fault
	data    sync.Cond
	turns   turns     // of the goroutines that wait for room
	over    int       // bytes of buf that were added when it was full already
	writing bool      // a write is under way
	sharers int       // how many goroutines add lines, if known
	wrote   time.Time // when the last write began
	// begun counts the bytes that were given to the connection, written those
	// that it has taken, the last ones at tookAt. While a long line is written,
	// that shows whether the other end lives.
	begun, written int64
	tookAt         time.Time
	// marks are the followed ends of lines, in order; those of marks[:marked]
	// were taken.
	marks  []*mark
	marked int
	// unanswered is how many bytes were written since the other end last sent
	// anything, if the owner keeps count.
	unanswered int
}

// mark is the end of a line that somebody follows. The writer's mu guards it.
type mark struct {
	end int64     // in bytes, as begun and written count
	at  time.Time // when the connection had taken all of it; zero until then
}

func (w *lineWriter) init(conn net.Conn) {
	w.conn = conn
	w.data.L = &w.mu
	w.wrote = time.Now()
}

// run writes until the writer is closed or a write fails, and returns why.
func (w *lineWriter) run() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for w.err == nil && (w.writing || len(w.buf) == 0 && !w.closing) {
			w.data.Wait()
		}
		if w.err != nil || len(w.buf) == 0 {
			return w.err
		}
		if w.sharers > 1 && len(w.buf) < fewBytes {
			// Other goroutines that are ready to run may have a line too: let them
			// add it first. That is no wait: if none is ready, this goes on at once.
			w.mu.Unlock()
			runtime.Gosched()
			w.mu.Lock()
		}
		w.write()
	}
}

// write writes what waits, unless another goroutine is writing. The caller
// holds mu, which is released meanwhile.
func (w *lineWriter) write() {
	if w.writing || w.err != nil || len(w.buf) == 0 {
		return
	}
	out := w.buf
	w.buf, w.spare = w.spare, nil
	w.wrote = time.Now()
	w.begun += int64(len(out))
	w.unanswered += len(out)
	w.writing = true
	w.over = 0
	w.turns.swap++
	w.turns.call(maxPending)
	w.mu.Unlock()
	var err error
	rest := out
	for len(out) > keepBuffer && len(rest) > longPiece && err == nil {
		_, err = w.conn.Write(rest[:longPiece])
		rest = rest[longPiece:]
		w.mu.Lock()
		w.took(longPiece)
		w.mu.Unlock()
	}
	if err == nil {
		_, err = w.conn.Write(rest)
	}
	w.mu.Lock()
	w.took(len(rest))
	w.writing = false
	if cap(out) <= keepBuffer {
		w.spare = out[:0]
	}
	if err != nil {
		w.fail(err)
	}
}

// took notes that the connection has taken n bytes. The caller holds mu.
func (w *lineWriter) took(n int) {
	w.written += int64(n)
	w.tookAt = time.Now()
	for w.marked < len(w.marks) && w.marks[w.marked].end <= w.written {
		w.marks[w.marked].at = w.tookAt
		w.marked++
	}
	if w.marked == len(w.marks) {
		w.marks, w.marked = w.marks[:0], 0
	}
}

// follow makes m the end of the line that was added last. The caller holds mu.
func (w *lineWriter) follow(m *mark) {
	m.end = w.begun + int64(len(w.buf))
	w.marks = append(w.marks, m)
}

// writeNow is added for a goroutine that has nothing else to do: it writes by
// itself, which saves a switch to another one. The caller holds mu.
func (w *lineWriter) writeNow() {
	if !w.closing {
		w.write()
	}
	if len(w.buf) > 0 || w.closing {
		w.added()
	}
}

// fits reports whether writing what waits surely does not block: less is on its
// way than any socket buffers. The caller holds mu.
func (w *lineWriter) fits() bool {
	_, ok := w.conn.(*net.TCPConn)
	return ok && w.unanswered+len(w.buf) <= surelyFits
}

// answered notes that the other end has read what it was sent, as its answer
// shows.
func (w *lineWriter) answered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unanswered = 0
}

// mayAdd reports whether there is room for a line and it is q's turn. The
// caller holds mu.
func (w *lineWriter) mayAdd(q *waiter) bool { return w.turns.mayAdd(q) && !w.full() }

// passOn notes that q adds nothing. If it was q's turn, it goes to the next
// waiter. The caller holds mu.
func (w *lineWriter) passOn(q *waiter) {
	if q.chosen {
		q.chosen = false
		if !w.full() {
			w.turns.call(max(w.turns.owed, 1))
		}
	}
}

// addedBy notes that q has added n bytes to buf. The caller holds mu.
func (w *lineWriter) addedBy(q *waiter, n int) {
	if len(w.buf)-n >= maxPending {
		w.over += n
	}
	w.turns.added(q, n)
	if !w.full() {
		w.turns.callRest()
	}
	w.added()
}

// open reports whether a line may still be added. The caller holds mu.
func (w *lineWriter) open() bool { return w.err == nil && !w.closing && !w.muted }

// full reports whether the next line has to wait. The caller holds mu.
func (w *lineWriter) full() bool { return len(w.buf) >= maxPending }

// added tells the writer that buf has grown. The caller holds mu.
func (w *lineWriter) added() { w.data.Signal() }

// fail stops the writer for good. The caller holds mu.
func (w *lineWriter) fail(err error) {
	if w.err == nil {
		w.err = err
	}
	w.buf = nil
	w.data.Signal()
	w.turns.wakeAll()
}

// stop makes run return: after writing what waits, or at once.
func (w *lineWriter) stop(flush bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !flush {
		w.fail(net.ErrClosed)
		return
	}
	w.finish()
}

// finish makes run write what waits and return. The caller holds mu.
func (w *lineWriter) finish() {
	w.closing = true
	// A peer that does not read by now is not waited for.
	_ = w.conn.SetWriteDeadline(time.Now().Add(lingerTime)) // best effort: without it the close takes longer
	w.data.Signal()
	w.turns.wakeAll()
}
