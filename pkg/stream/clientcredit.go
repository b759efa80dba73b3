package stream

import (
	"fmt"
	"time"
)

const (
	// maxWindow is how many bytes of lines a server may be ahead of a caller who
	// keeps up: enough for 40 MB/s on a link of 100 ms.
	maxWindow = 4 << 20
	// growWithin is how quickly a whole window has to be taken for it to double:
	// within the round trip of any link that is in use. Where that takes longer,
	// the window is not what holds the stream up.
	growWithin = 2 * time.Second
	// fastEnough is how many bytes a second are enough for one stream, half a
	// gigabit: where a window gives as many, a wider one would only hold more.
	fastEnough = 64 << 20
)

// A window is how far a server may be ahead of the stream's caller, who makes
// this end hold as much by not reading. It belongs to the caller's goroutine.
type window struct {
	size   int
	taken  int // bytes of lines that were read and for which no credit went out
	round  int // bytes of lines for which credit went out since began
	began  time.Time
	waited time.Duration // for lines, since began
}

// MaxHeld is how many bytes a [Client] holds at most for a caller who was quick
// and has stopped reading: the widest window, a line that overran it, and one for
// the end, which needs no credit. One who never was quick makes it hold 256 KiB
// and two lines.
const MaxHeld = maxWindow + 2*MaxLine

// grant lets the server send as much again as the caller has taken, in quarters
// of the window, and more where the window is too narrow.
func (st *clientStream) grant(n int) {
	st.taken += n
	if st.taken < st.size/4 {
		return
	}
	n, st.taken = st.taken, 0
	if st.round += n; st.round >= st.size {
		now := time.Now()
		if st.size < maxWindow && st.tooNarrow(now.Sub(st.began)) {
			n += st.size
			st.size *= 2
		}
		st.round, st.waited, st.began = 0, 0, now
	}
	st.mu.Lock()
	st.held -= n
	st.mu.Unlock()
	st.conn.send(func(buf []byte) []byte { return appendIndexEvent(buf, st.prefix, eventCredit, n) })
}

// tooNarrow reports whether the window may be what holds the stream up, if a
// whole one was taken in the time that took: the caller was the quicker, and
// waited for lines for most of that time.
func (w *window) tooNarrow(took time.Duration) bool {
	return w.waited > took/2 && took < growWithin && took > time.Duration(w.size)*time.Second/fastEnough
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
