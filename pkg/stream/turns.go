package stream

import "sync"

const (
	// turnBytes is how much one stream adds to a connection's buffer while others
	// wait, before it waits too. It is a quarter of the buffer, so that several
	// streams share each write, and hundreds of small items, so that these are
	// not handed over one by one. It is also by how much streams that have added
	// little lately may overfill a buffer, so that their lines need not wait for
	// the next one.
	turnBytes = maxPending / 4
	// restBytes is how much a stream gets back of its turn for each buffer that
	// goes out without it. After one such buffer, a stream of tokens counts as
	// having added little again, while a stream of long items still has a debt.
	restBytes = turnBytes / 128
)

// waiter is a stream that adds lines to a connection and may have to wait for
// room. The lineWriter's mu guards all of it.
type waiter struct {
	wake       sync.Cond // the owner may use it too
	prev, next *waiter
	// left is how many bytes are left of its turn, less than 0 after a longer
	// line. swap is the buffer up to which that is reckoned.
	left int32
	swap uint32
	// queued: it waits. fresh: it waits in the fresh queue.
	queued, fresh bool
	// much: it has used up a turn and has not rested since. long: its next line
	// is longer than a turn.
	much, long bool
	// reader: it waits on behalf of the connection's reader. That adds only short
	// lines, and while it waits nobody is heard.
	reader bool
	// granted: its turn has come and is not over. promised: nobody else may add
	// anything before it adds or gives that up.
	granted, promised bool
}

func (q *waiter) init(l sync.Locker) {
	q.wake.L = l
	q.left = turnBytes
}

// waitQueue is a list of waiters, first come, first served.
type waitQueue struct{ first, last *waiter }

func (l *waitQueue) pushBack(q *waiter) {
	q.prev, q.next = l.last, nil
	if l.last != nil {
		l.last.next = q
	} else {
		l.first = q
	}
	l.last = q
}

func (l *waitQueue) pushFront(q *waiter) {
	q.prev, q.next = nil, l.first
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
	q.queued, q.prev, q.next = false, nil, nil
}

// turns lets streams take turns at one buffer. Those that have added little
// lately go first, so that a short answer does not wait behind long ones; the
// others share the rest evenly, counted in bytes. This is deficit round robin
// with a list of new flows, as in FQ-CoDel (RFC 8290).
type turns struct {
	fresh, rest waitQueue
	swap        uint32 // counts the buffers that went out
	over        int    // bytes by which the current one is overfilled
	promised    bool   // a fresh waiter was promised to go first
}

// queueOf returns the queue for q.
func (t *turns) queueOf(q *waiter) *waitQueue {
	if q.fresh {
		return &t.fresh
	}
	return &t.rest
}

// waits reports whether anybody waits.
func (t *turns) waits() bool { return t.fresh.first != nil || t.rest.first != nil }

// next notes that a buffer goes out and another one begins.
func (t *turns) next() {
	t.swap++
	t.over = 0
	t.grant()
}

// isFresh reports whether q has added little lately and adds little now, and so
// goes first.
func (t *turns) isFresh(q *waiter) bool {
	if missed := int(t.swap-q.swap) - 1; missed > 0 {
		q.left = min(q.left+int32(min(missed, 1<<16))*restBytes, turnBytes)
		q.swap = t.swap - 1
		q.much = q.left <= 0
	}
	return !q.much && !q.long
}

// mayAdd reports whether q may add a line to the buffer.
func (t *turns) mayAdd(q *waiter, full bool) bool {
	switch {
	case q.reader && full:
		return t.over < 2*turnBytes
	case q.reader:
		return true
	case q.promised:
		return !full
	case t.promised:
		return false
	case full:
		return t.fresh.first == nil && t.over < turnBytes && t.isFresh(q)
	}
	return q.granted || !t.waits() || t.fresh.first == nil && t.isFresh(q)
}

// charge counts n added bytes against q's turn.
func (t *turns) charge(q *waiter, n int, full bool) {
	t.isFresh(q) // updates left
	q.swap = t.swap
	q.left -= int32(n) // a line is 1 MiB at most
	if full {
		t.over += n
	}
	if q.left > 0 {
		return
	}
	q.granted, q.much = false, true
	if !t.waits() {
		q.left = max(q.left, -int32(n)) // its earlier lines kept nobody waiting
	}
}

// wait queues q until its turn comes or something else wakes it. The caller
// checks everything again afterwards.
func (t *turns) wait(q *waiter) {
	q.queued, q.fresh = true, t.isFresh(q)
	if queue := t.queueOf(q); q.granted {
		queue.pushFront(q)
	} else {
		queue.pushBack(q)
	}
	q.wake.Wait()
	if q.queued {
		t.queueOf(q).remove(q)
	}
}

// settle takes back the promise that q goes first.
func (t *turns) settle(q *waiter) {
	if q.promised {
		q.promised, t.promised = false, false
	}
}

// grant wakes the waiter whose turn is next, if there is one.
func (t *turns) grant() {
	if t.promised {
		return // the promised one calls passOn
	}
	q := t.fresh.first
	if q != nil {
		q.promised, t.promised = true, true
	}
	for q == nil && t.rest.first != nil {
		q = t.rest.first
		if q.granted {
			break
		}
		if q.left += turnBytes; q.left <= 0 { // it pays its debt first
			t.rest.remove(q)
			t.rest.pushBack(q)
			q.queued, q = true, nil
		}
	}
	if q != nil {
		t.queueOf(q).remove(q)
		q.granted, q.swap = true, t.swap
		q.wake.Signal()
	}
}

// wakeAll wakes every waiter: nothing can be added any more.
func (t *turns) wakeAll() {
	for _, queue := range []*waitQueue{&t.fresh, &t.rest} {
		for queue.first != nil {
			q := queue.first
			queue.remove(q)
			q.wake.Signal()
		}
	}
}
