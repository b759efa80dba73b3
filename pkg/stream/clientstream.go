package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

var (
	errLeft  = errors.New("the caller has left the sequence")
	errStale = errors.New("a kept connection had died")
)

// clientStream is one stream of a client. The connection's reader puts lines
// in; the caller's goroutine takes them out and decodes them.
type clientStream struct {
	conn   *clientConn
	number int64
	prefix []byte // how its lines begin
	req    outgoing
	reused bool // its connection has had other streams
	sent   mark // where the request ends

	mu      sync.Mutex
	lines   *chunk // whole lines that were not yet taken; nil if none
	spare   *chunk // an empty chunk for later lines; nil if none
	err     error  // why no more come
	waiting bool   // the caller waits for wake
	wake    chan struct{}
	held    int // bytes of lines that were put in, less the credit that was sent

	// Of the caller's goroutine.
	started bool
	next    int  // index of the next item
	seen    bool // a line came
	over    bool // the last line came
	items   slab
	patience
	window
}

// chunk is a run of lines on its way from the reader to a stream. A busy stream
// has two: the reader fills one while the caller empties the other.
type chunk struct{ b []byte }

// chunks keeps empty chunks, so that waiting streams hold none.
//
//nolint:gochecknoglobals // a cache: losing what it holds harms nothing
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
		window: window{size: initialCredit, widest: max(cmpOr(c.client.MaxWindow, DefaultMaxWindow), initialCredit), began: time.Now()},
	}
}

// push puts lines in. A server that sends more than it was allowed breaks the
// connection, since what it sends is held in memory.
func (st *clientStream) push(lines []byte) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	// The last line within the credit may overrun it, and the end line needs
	// none.
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

// end notes that no more lines come, and why.
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

// take returns the lines that are there, or why none will come. If neither is
// known yet, wake gets a value as soon as one is. used is the chunk of the
// previous call, emptied.
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

// stopWaiting ends a wait for wake, and reports whether take has something
// after all.
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

// queued reports whether take would return lines.
func (st *clientStream) queued() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.lines != nil
}

// receive yields the stream's items until it ends. It returns nil after the end
// line, and errLeft if the caller left.
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
		// Only progress restarts the timer, not any number of other lines.
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

// isLoss reports whether a connection ended the way one does that died while it
// was idle.
func isLoss(err error) bool {
	return errors.Is(err, Truncated) || errors.Is(err, Reset)
}

// readLines yields the items in lines and reports whether the stream is
// complete.
func (st *clientStream) readLines(lines []byte, yield func(Annotated, error) bool) (complete bool, err error) {
	st.seen = true
	for len(lines) > 0 {
		var line []byte
		line, lines = cutLine(lines)
		if data, ok := plainItem(line, st.prefix); ok && st.started {
			st.next++
			if !yield(Annotated{Data: st.items.keep(data, len(lines))}, nil) {
				return false, errLeft
			}
			continue
		}
		a, err := decodeAnnotated(line, st.number, st.prefix)
		if err != nil {
			return false, badLine(line, err)
		}
		if a.Event != "" {
			if complete, err = st.event(a); complete || err != nil {
				return complete, err
			}
			if isControl(a.Event) {
				continue
			}
		}
		if len(a.Data) == 0 {
			continue // a comment, or an event of a newer server
		}
		if !st.started {
			return false, badLine(line, errors.New("an item before the start"))
		}
		st.next++
		if !yield(a, nil) {
			return false, errLeft
		}
	}
	return false, nil
}

// slab is memory for a stream's items. They come in bursts, and one allocation
// then serves many small ones. Keeping one item keeps its slab.
type slab struct{ free []byte }

// slabSize bounds how much memory a kept item holds besides itself.
const slabSize = 2 << 10

// keep returns a copy of data. At most more bytes will be asked for soon.
func (s *slab) keep(data []byte, more int) []byte {
	n := len(data)
	if n > len(s.free) {
		if n > slabSize/8 {
			return bytes.Clone(data)
		}
		s.free = make([]byte, min(n+more, slabSize))
	}
	kept := s.free[:n:n]
	s.free = s.free[n:]
	copy(kept, data)
	return kept
}

// event acts on a line with an event. It reports whether the stream is
// complete, or returns the break that the line is.
func (st *clientStream) event(a Annotated) (complete bool, err error) {
	broken := func(format string, args ...any) (bool, error) {
		return false, &Break{Kind: Protocol, Reason: fmt.Sprintf(format, args...)}
	}
	switch a.Event {
	case eventStart:
		n, err := index(a.Event, a.ID)
		switch {
		case err != nil:
			return broken("%v", err)
		case st.started:
			return broken("a second start")
		case n != st.req.From:
			return broken("server starts at item %d, not at %d", n, st.req.From)
		}
		st.started = true
		if hooks := st.req.Hooks; hooks != nil && hooks.Started != nil {
			hooks.Started()
		}
		return false, nil
	case eventEnd:
		st.over = true
		n, err := index(a.Event, a.ID)
		switch {
		case err != nil:
			return broken("%v", err)
		case !st.started:
			return broken("an end before the start")
		case n != st.next:
			return broken("server counts %d items, %d came", n, st.next)
		}
		return true, nil
	}
	if b := said(a); b != nil {
		st.over = true
		switch {
		case b.Kind == Misdirected && st.started:
			return broken("misdirected after the start")
		case (b.Kind == Overloaded || b.Kind == Unresumable) && st.next > st.req.From:
			return broken("%s after an item", a.Event)
		}
		return false, b
	}
	if !st.started && !isControl(a.Event) {
		st.over = true
		return false, unknownRefusal(a)
	}
	return false, nil
}

const (
	// A window doubles if it is what limits the stream: if taking a whole one
	// takes about the round trip of a long link. If it takes less than shortRound,
	// a window of 256 KiB allows 26 MB/s; if it takes more than longRound, the
	// server is what is slow.
	shortRound = 10 * time.Millisecond
	longRound  = 2 * time.Second
)

// A window is how far a server may be ahead of the stream's caller, and so how
// much this end may have to hold for a caller who does not read. It belongs to
// the caller's goroutine.
type window struct {
	size     int
	widest   int // what it may grow to
	taken    int // bytes of lines that were read and not yet credited
	round    int // bytes of lines that were read since began
	began    time.Time
	waited   time.Duration // for lines, since began
	narrow   bool          // the window limited the stream in the last round
	withheld int           // bytes that will not be credited, to make the window smaller
}

// grant lets the server send as much again as the caller has taken, in quarters
// of the window.
func (st *clientStream) grant(n int) {
	st.taken += n
	if st.taken < st.size/4 {
		return
	}
	n, st.taken = st.taken, 0
	if st.round += n; st.round >= st.size {
		n += st.resize(time.Now())
	}
	paid := min(n, st.withheld)
	st.withheld -= paid
	if n -= paid; n == 0 {
		return
	}
	st.mu.Lock()
	st.held -= n
	st.mu.Unlock()
	st.conn.send(func(buf []byte) []byte { return appendIndexEvent(buf, st.prefix, eventCredit, n) })
}

// resize begins a new round, and returns by how much the window has grown. It
// grows for a caller who has spent most of two rounds waiting for lines, as one
// such round may be an accident. It shrinks for one who hardly waits: the lines
// that wait for that caller are held in memory.
func (w *window) resize(now time.Time) (grown int) {
	took := now.Sub(w.began)
	narrow := w.waited > took/2 && shortRound < took && took < longRound
	switch {
	case narrow && w.narrow && w.size < w.widest:
		grown = min(w.size, w.widest-w.size)
		w.size += grown
	case w.waited < took/8 && w.size > initialCredit:
		half := max(w.size/2, initialCredit)
		w.withheld += w.size - half
		w.size = half
	}
	w.round, w.waited, w.began, w.narrow = 0, 0, now, narrow
	return grown
}

// mayCome returns how many bytes of lines the server may still send.
func (st *clientStream) mayCome() int {
	st.mu.Lock()
	defer st.mu.Unlock()
	return max(initialCredit-st.held, 0) + MaxLine
}

// overrun is the break of a server that exceeds its credit.
func (st *clientStream) overrun() *Break {
	return &Break{Kind: Protocol, Reason: fmt.Sprintf("server sent more than stream %d was given credit for", st.number)}
}
