package stream

import "sync"

const (
	// turnBytes is what one stream adds to a connection's buffer while others
	// wait, before it waits too: a quarter of the buffer, so that several share
	// each write, and hundreds of small items, so that they are not handed over
	// one by one. It is also by how much those who have added little lately may
	// overfill a buffer: their lines need not wait for the next one.
	turnBytes = maxPending / 4
	// restBytes is what a stream gets back of its turn for each buffer that goes
	// out without it: after one, a stream of tokens counts as one that has added
	// little again, and one of long items still has a debt.
	restBytes = turnBytes / 128
)

// waiter is one who adds lines to a connection and may have to wait for room. All
// of it is guarded by the lineWriter's mu.
type waiter struct {
	wake       sync.Cond // also for reasons of the owner's
	prev, next *waiter
	// left is how many bytes are left of its turn; a line that was longer leaves
	// a debt. swap is the buffer up to which that is reckoned.
	left int32
	swap uint32
	// queued says that it waits; fresh, that it does among those.
	queued, fresh bool
	// much says that it has used up a turn and has not rested since; long, that the
	// line that it is to add is longer than a turn.
	much, long bool
	// reader says that it waits on behalf of who reads from the connection: what
	// that one adds is short, and while it waits nobody is heard.
	reader bool
	// granted says that its turn has come and is not over; promised, that no
	// other may add anything before it does or gives that up.
	granted, promised bool
}

func (q *waiter) init(l sync.Locker) {
	q.wake.L = l
	q.left = turnBytes
}

// waitQueue is a list of waiters, first come first.
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

// turns lets those who add lines to one buffer take turns at it. Who has added
// little lately goes first, so that a short answer does not wait behind long ones;
// the others share what is left evenly, counted in bytes: deficit round robin with
// a list of new flows, as in FQ-CoDel (RFC 8290).
type turns struct {
	fresh, rest waitQueue
	swap        uint32 // counts the buffers that went out
	over        int    // by how much the present one is overfilled
	promised    bool   // one of the fresh has been told that it goes first
}

// queueOf returns where q waits.
func (t *turns) queueOf(q *waiter) *waitQueue {
	if q.fresh {
		return &t.fresh
	}
	return &t.rest
}

// waits reports whether anybody waits.
func (t *turns) waits() bool { return t.fresh.first != nil || t.rest.first != nil }

// next says that a buffer goes out and another one begins.
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

// mayAdd reports whether q may add a line to a buffer that is full or not.
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

// charge counts n bytes that q has added against its turn.
func (t *turns) charge(q *waiter, n int, full bool) {
	t.isFresh(q) // reckons
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
		q.left = max(q.left, -int32(n)) // nobody was kept waiting by what was before
	}
}

// wait queues q until its turn comes or something else wakes it. The caller
// looks at everything again afterwards.
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

// settle says that q goes first no more.
func (t *turns) settle(q *waiter) {
	if q.promised {
		q.promised, t.promised = false, false
	}
}

// grant wakes the one whose turn is next, if anybody waits.
func (t *turns) grant() {
	if t.promised {
		return // that one goes on with it
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

// wakeAll lets everybody see that nothing can be added any more.
func (t *turns) wakeAll() {
	for _, queue := range []*waitQueue{&t.fresh, &t.rest} {
		for queue.first != nil {
			q := queue.first
			queue.remove(q)
			q.wake.Signal()
		}
	}
}
