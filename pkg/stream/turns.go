package stream

import "sync"

// turnBytes is what one stream adds to a connection's buffer while others wait,
// before it waits too: a quarter of the buffer, so that several share each write,
// and hundreds of small items, so that they are not handed over one by one.
const turnBytes = maxPending / 4

// waiter is one who adds lines to a connection and may have to wait for room. All
// of it is guarded by the lineWriter's mu.
type waiter struct {
	wake       sync.Cond // also for reasons of the owner's
	prev, next *waiter
	queue      *waitQueue // where it waits; nil if it does not
	// left is how many bytes are left of its turn; a line that was longer leaves
	// a debt. swap is the buffer that it added to last.
	left int
	swap uint32
	// granted says that its turn has come and is not over.
	granted bool
}

func (q *waiter) init(l sync.Locker) {
	q.wake.L = l
	q.left = turnBytes
}

// waitQueue is a list of waiters, first come first.
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

// turns lets those who add lines to one buffer take turns at it. Who has added
// little lately goes first, so that a short answer does not wait behind long ones;
// the others share what is left evenly, counted in bytes: deficit round robin with
// a list of new flows, as in FQ-CoDel (RFC 8290).
type turns struct {
	fresh, rest waitQueue
	swap        uint32 // counts the buffers that went out
}

// waits reports whether anybody waits.
func (t *turns) waits() bool { return t.fresh.first != nil || t.rest.first != nil }

// isFresh reports whether q has something left of a turn, or has sat a whole
// buffer out and begins a new one.
func (t *turns) isFresh(q *waiter) bool { return q.left > 0 || t.swap-q.swap > 1 }

// isTurn reports whether q may add a line, if there is room.
func (t *turns) isTurn(q *waiter) bool {
	return q.granted || !t.waits() || t.fresh.first == nil && t.isFresh(q)
}

// charge counts n bytes that q has added against its turn.
func (t *turns) charge(q *waiter, n int) {
	if t.isFresh(q) && q.left <= 0 {
		q.left = turnBytes
	}
	q.swap = t.swap
	q.left -= n
	if q.left > 0 {
		return
	}
	q.granted = false
	if !t.waits() {
		q.left = 0 // nobody was kept waiting: no debt
	}
}

// wait queues q until its turn comes or something else wakes it. The caller
// looks at everything again afterwards.
func (t *turns) wait(q *waiter) {
	queue := &t.rest
	if t.isFresh(q) {
		queue = &t.fresh
	}
	if q.granted {
		queue.pushFront(q)
	} else {
		queue.pushBack(q)
	}
	q.wake.Wait()
	if q.queue != nil {
		q.queue.remove(q)
	}
}

// grant wakes the one whose turn is next, if anybody waits.
func (t *turns) grant() {
	q := t.fresh.first
	for q == nil && t.rest.first != nil {
		q = t.rest.first
		if q.granted {
			break
		}
		if q.left += turnBytes; q.left <= 0 { // it pays its debt first
			t.rest.remove(q)
			t.rest.pushBack(q)
			q = nil
		}
	}
	if q != nil {
		q.queue.remove(q)
		q.granted = true
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
