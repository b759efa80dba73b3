package stream

import "sync"

const (
	// turnBytes is how much one stream adds to a connection's buffer while others
	// wait, before it waits too. It is a quarter of the buffer, so that several
	// streams share each write, and hundreds of small items, so that these are
	// not handed over one by one.
	turnBytes = maxPending / 4
	// restBytes is how much a stream gets back of its turn for each buffer that
	// goes out without it. It is enough for a stream of tokens never to use up its
	// turn, while a stream of long items still has a debt.
	restBytes = turnBytes / 128
)

// waiter is a stream that adds lines to a connection and may have to wait for
// its turn. The lineWriter's mu guards all of it.
type waiter struct {
	wake       sync.Cond // the owner may use it too
	prev, next *waiter
	queue      *waitQueue // where it waits; nil if it does not
	left       int32      // bytes that are left of its turn, less than 0 after a longer line
	swap       uint32     // the buffer in which it last had its turn
	// greedy: it has used up a turn and has not rested since.
	greedy bool
	// called: it was woken and has not run yet. first: it was then one of those
	// that go first. chosen: its turn has come and it has added nothing yet.
	called, first, chosen bool
}

func (q *waiter) init(l sync.Locker) {
	q.wake.L = l
	q.left = turnBytes
}

// waitQueue is a list of waiters, first come, first served.
type waitQueue struct{ first, last *waiter }

func (l *waitQueue) pushBack(q *waiter) {
	q.queue, q.prev, q.next = l, l.last, nil
	if l.last != nil {
		l.last.next = q
	} else {
		l.first = q
	}
	l.last = q
}

func (l *waitQueue) pushFront(q *waiter) {
	q.queue, q.prev, q.next = l, nil, l.first
	if l.first != nil {
		l.first.prev = q
	} else {
		l.last = q
	}
	l.first = q
}

func (l *waitQueue) remove(q *waiter) {
	if q.prev != nil {
		q.prev.next = q.next
	} else {
		l.first = q.next
	}
	if q.next != nil {
		q.next.prev = q.prev
	} else {
		l.last = q.prev
	}
	q.queue, q.prev, q.next = nil, nil, nil
}

// turns lets streams take turns at one buffer. Those that have not used up a turn
// lately go first, so that a short answer does not wait behind long ones; the
// others share the rest evenly, counted in bytes. This is deficit round robin
// with a list of new flows, as in FQ-CoDel (RFC 8290).
//
// While any stream waits, a buffer goes out soon or a waiter has been called. A
// called waiter adds a line, which makes the next buffer go out, or calls
// another one.
type turns struct {
	fresh, rest waitQueue
	called      int    // waiters that were woken and have not run yet
	calledFirst int    // those of them that go first
	owed        int    // bytes for which the rest is called after those
	swap        uint32 // counts the buffers that went out
}

// waits reports whether anybody waits.
func (t *turns) waits() bool {
	return t.called > 0 || t.fresh.first != nil || t.rest.first != nil
}

// reckon gives q back a part of its turn for each whole buffer that went out
// without it.
func (t *turns) reckon(q *waiter) {
	if missed := t.swap - q.swap; missed > 1 {
		q.left = min(q.left+int32(min(missed-1, 1<<16))*restBytes, turnBytes)
		q.greedy = q.left <= 0
		q.swap = t.swap - 1
	}
}

// mayAdd reports whether q may add a line to the buffer, which is not full.
func (t *turns) mayAdd(q *waiter) bool {
	t.reckon(q)
	if q.greedy && (t.calledFirst > 0 || t.fresh.first != nil) {
		return false
	}
	return q.left > 0 || q.chosen || !t.waits()
}

// added charges n bytes that q has added against its turn.
func (t *turns) added(q *waiter, n int) {
	q.chosen, q.swap = false, t.swap
	waits := t.waits()
	if !waits {
		q.left = min(q.left+turnBytes, turnBytes)
	}
	q.left -= int32(n)
	if !waits {
		q.left = max(q.left, -int32(n)) // its earlier lines kept nobody waiting
	}
	q.greedy = q.left <= 0 || q.greedy && waits
}

// wait queues q until its turn comes or something else wakes it. The caller
// checks everything again afterwards.
func (t *turns) wait(q *waiter) {
	t.reckon(q) // as for mayAdd, so that whoever queues as fresh found the buffer full
	switch {
	case q.left <= 0 && !q.chosen:
		t.rest.pushBack(q)
	case q.greedy:
		t.rest.pushFront(q) // its turn goes on
	case q.chosen:
		t.fresh.pushFront(q)
	default:
		t.fresh.pushBack(q)
	}
	q.wake.Wait()
	if q.called {
		t.called--
		if q.first {
			t.calledFirst--
		}
		q.called, q.first = false, false
	}
	if q.queue != nil {
		q.queue.remove(q)
	}
}

// call wakes the waiters whose turn is next, as many as fill n bytes. The rest is
// called only when those that go first have run.
func (t *turns) call(n int) {
	t.owed = 0
	for n > 0 && t.fresh.first != nil {
		q := t.fresh.first
		q.first = true
		t.calledFirst++
		t.wake(q)
		n -= turnBytes
	}
	if t.calledFirst > 0 {
		t.owed = n
		return
	}
	for n > 0 && t.rest.first != nil {
		q := t.rest.first
		if q.left <= 0 {
			q.left += turnBytes
		}
		if q.left > 0 {
			t.wake(q)
			n -= turnBytes
		} else { // it pays its debt first
			t.rest.remove(q)
			t.rest.pushBack(q)
		}
	}
}

func (t *turns) wake(q *waiter) {
	q.queue.remove(q)
	q.called, q.chosen, q.swap = true, true, t.swap
	t.called++
	q.wake.Signal()
}

// callRest wakes those that had to let others go first, once these have run.
func (t *turns) callRest() {
	if t.owed > 0 && t.calledFirst == 0 {
		t.call(t.owed)
	}
}

// wakeAll wakes every waiter: nothing can be added any more.
func (t *turns) wakeAll() {
	for _, queue := range []*waitQueue{&t.fresh, &t.rest} {
		for queue.first != nil {
			t.wake(queue.first)
		}
	}
}
