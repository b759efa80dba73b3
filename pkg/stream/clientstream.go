package stream

import (
	"context"
	"errors"
	"sync"
	"time"
)

var (
	errLeft  = errors.New("the caller has left the sequence")
	errStale = errors.New("a kept connection had died")
)

// clientStream is one stream of a client. The connection's reader puts lines
// in; the goroutine of the caller takes them out and reads them.
type clientStream struct {
	conn   *clientConn
	number int64
	prefix []byte // how its lines begin
	req    outgoing
	reused bool // its connection has had other streams
	sent   mark // the end of the request

	mu      sync.Mutex
	lines   *chunk // whole lines that came and were not yet taken; nil if none
	spare   *chunk // an empty one for the lines to come; nil if none
	err     error  // why no more come
	waiting bool   // the caller waits for wake
	wake    chan struct{}
	held    int // bytes of lines that were put in, less those for which credit went out

	// Of the caller's goroutine.
	started bool
	next    int  // index of the next item
	seen    bool // a line came
	over    bool // the server has said its last word
	items   slab
	patience
	window
}

// chunk is a run of lines on its way from the reader to a stream. A stream whose
// lines keep coming has two of them, of which the reader fills one while the
// caller empties the other.
type chunk struct{ b []byte }

// chunks keeps empty chunks, so that a stream which waits holds none.
//
//nolint:gochecknoglobals // a cache: it holds nothing that anybody could miss
var chunks = sync.Pool{New: func() any { return &chunk{b: make([]byte, 0, 1024)} }}

func (c *chunk) free() {
	if c != nil && cap(c.b) <= keepBuffer {
		c.b = c.b[:0] // the caller may have left in the middle
		chunks.Put(c)
	}
}

func newClientStream(c *clientConn, number int64, req *outgoing) *clientStream {
	return &clientStream{
		conn: c, number: number, prefix: appendPrefix(make([]byte, 0, 32), number),
		req: *req, next: req.From, wake: make(chan struct{}, 1),
		window: window{size: initialCredit, began: time.Now()},
	}
}

// push puts lines in. A server that sends more than it was allowed breaks the
// connection: what it sends is held in memory.
func (st *clientStream) push(lines []byte) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	// The last line within the credit may overrun it, and the end needs none.
	if st.held += len(lines); st.held > initialCredit+2*MaxLine {
		return st.overrun()
	}
	if st.lines == nil {
		st.lines, st.spare = st.spare, nil
	}
	if st.lines == nil {
		st.lines = chunks.Get().(*chunk)
	}
	st.lines.b = append(st.lines.b, lines...)
	st.signal()
	return nil
}

// end says that no more lines come.
func (st *clientStream) end(why error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.err = why
	st.signal()
}

func (st *clientStream) signal() {
	if st.waiting {
		st.waiting = false
		st.wake <- struct{}{}
	}
}

// take takes out the lines that are there, or says why none will come, or
// neither, and then wake gets a value when there are. It takes back what it gave
// out before, emptied.
func (st *clientStream) take(used *chunk) (*chunk, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	lines := st.lines
	if lines != nil {
		st.lines, st.spare = nil, used
		return lines, nil
	}
	st.spare.free()
	used.free()
	st.spare = nil
	st.waiting = st.err == nil
	return nil, st.err
}

// stopWaiting ends a wait for wake, and reports whether take has something all
// the same.
func (st *clientStream) stopWaiting() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.waiting {
		st.waiting = false
		return false
	}
	<-st.wake // signal has just sent it
	return true
}

// queued reports whether lines came that take would return.
func (st *clientStream) queued() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.lines != nil
}

// receive yields the stream's items until it ends, and returns nil if that was
// at its end line, errLeft if the caller left.
func (st *clientStream) receive(ctx context.Context, yield func(Annotated, error) bool) (err error) {
	var lines *chunk
	defer func() {
		lines.free()
		if errors.Is(err, Unresponsive) || errors.Is(err, errStale) {
			st.conn.retire()
		}
		st.conn.forget(st, !st.over)
	}()
	st.startWaiting()
	defer st.timer.Stop()
	for {
		lines, err = st.take(lines)
		switch {
		case lines != nil:
		case err != nil && st.reused && !st.seen && isLoss(err):
			return errStale
		case err != nil:
			return err
		default:
			if err := st.wait(ctx); err != nil {
				return err
			}
			continue
		}
		started, next := st.started, st.next
		complete, err := st.readLines(lines.b, yield)
		n := len(lines.b)
		lines.b = lines.b[:0]
		if complete || err != nil {
			return err
		}
		st.grant(n)
		// Lines that bring nothing put nothing off, however many they are.
		if st.started != started || st.next != next {
			st.waitForItem()
		}
		if err := st.check(ctx); err != nil {
			return err
		}
	}
}

func (st *clientStream) cancelled(ctx context.Context) error {
	return ended(ctx, "request %s to %s", st.req.ID, st.conn.addr)
}

// isLoss reports whether a connection ended in the way that one does which died
// while nobody used it.
func isLoss(err error) bool {
	return errors.Is(err, Truncated) || errors.Is(err, Reset)
}
