package stream

import (
	"fmt"
	"time"
)

const (
	// maxWindow is how many bytes of lines a server may be ahead of a caller who
	// keeps up: enough for 40 MB/s on a link of 100 ms.
	maxWindow = 4 << 20
	// A window doubles if it is what holds the stream up: if a whole one takes as
	// long as a round trip of a long link does. Where it takes less than
	// shortRound, one of 256 KiB gives 26 MB/s; where it takes more than
	// longRound, it is the server that takes its time.
	shortRound = 10 * time.Millisecond
	longRound  = 2 * time.Second
)

// A window is how far a server may be ahead of the stream's caller, who makes
// this end hold as much by not reading. It belongs to the caller's goroutine.
type window struct {
	size     int
	taken    int // bytes of lines that were read and for which no credit went out
	round    int // bytes of lines that were read since began
	began    time.Time
	waited   time.Duration // for lines, since began
	narrow   bool          // the window held the stream up in the last round
	withheld int           // bytes for which no credit goes out, to make the window smaller
}

// MaxHeld is how many bytes a [Client] holds at most for a caller who was quick
// and has stopped reading: the widest window, a line that overran it, and one for
// the end, which needs no credit. One who never was quick makes it hold 256 KiB
// and two lines.
const MaxHeld = maxWindow + 2*MaxLine

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
// grows for a caller who has waited for lines for most of two rounds, one of
// which may have been an accident, and shrinks for one who hardly waits: what
// waits for that one is held in memory.
func (w *window) resize(now time.Time) (grown int) {
	took := now.Sub(w.began)
	narrow := w.waited > took/2 && shortRound < took && took < longRound
	switch {
	case narrow && w.narrow && w.size < maxWindow:
		grown = w.size
		w.size *= 2
	case w.waited < took/8 && w.size > initialCredit:
		w.size /= 2
		w.withheld += w.size
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

// overrun is the break of a server that pays no heed to the credit that it has.
func (st *clientStream) overrun() *Break {
	return &Break{Kind: Protocol, Reason: fmt.Sprintf("server sent more than stream %d was given credit for", st.number)}
}
