package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// simRequest is one request: its caller, and what the servers know of it.
type simRequest struct {
	s     *sim
	n     int
	id    string
	size  int // items of the right answer
	want  string
	ctx   context.Context
	leave int // after how many items the caller leaves; -1: never

	// Guarded by s.mu.
	began     time.Time
	listed    bool // the instance it asks for has been listed since then
	visits    []*visit
	breaks    int      // streams that broke, refusals not counted
	spent     int      // of them, those that count
	items     []string // that the caller has; when restarting, of this attempt
	got       int      // how many
	delivered bool     // the caller has had an item
	// What it takes to carry the answer on.
	isKept      bool // the router has the items
	kept        int  // their size
	isNumbered  bool // an index means the same at all that resume by index
	isJoined    bool // never again
	unresumable bool // an instance could not go on
	diverged    int  // answers that differed
	failed      bool // in a way that is the request's own
	pauses      int  // streams that broke because this process was paused
	overloads   int  // refusals as overloaded since the last item
	panicked    bool
	// askedBackingOff: one instance at most that was backing off.
	askedBackingOff bool
	waiting         bool // for an instance: between streams, or before the first
	over            string
	endedAt         time.Time // when the last visit did; before the first, when it began
	candidates      bool      // there was an instance to go to then
}

func (s *sim) newRequest(n int) {
	q := &simRequest{s: s, n: n, id: fmt.Sprintf("q%d", n), leave: -1}
	s.requests[q.id] = q
}

// run makes the request some time, and looks at every item and at the end.
func (q *simRequest) run(ctx context.Context) {
	s, rng := q.s, q.s.rand(2, uint64(q.n))
	q.size = rng.IntN(10)
	req := Request{ID: q.id, Data: stream.String(q.id)}
	switch rng.IntN(8) {
	case 0:
		q.leave = 1 + rng.IntN(q.size+1)
	case 1, 2:
		req.Instance = instance(1 + rng.IntN(4)).Name
	}
	q.want = req.Instance
	time.Sleep(1 + upTo(rng, 20*time.Second))
	var cancel context.CancelFunc
	switch rng.IntN(8) {
	case 0:
		ctx, cancel = context.WithTimeout(ctx, upTo(rng, 2*time.Second))
	case 1:
		ctx, cancel = context.WithCancel(ctx)
		time.AfterFunc(upTo(rng, 10*time.Second), cancel)
	default:
		ctx, cancel = context.WithCancel(ctx)
	}
	defer cancel()
	slow := rng.IntN(4) == 0
	s.mu.Lock()
	q.ctx, q.began, q.listed = ctx, time.Now(), q.isListed()
	q.endedAt, q.candidates, q.waiting = q.began, q.listed && q.hasCandidate(), true
	s.note("%s begins: %d items", q.id, q.size)
	s.mu.Unlock()

	done := false
	for item, err := range s.r.Do(ctx, req) {
		if done {
			s.fail("%s: a pair after the last", q.id)
		}
		if err != nil {
			q.ended(err)
			done = true
			continue
		}
		if n := q.received(item); n == q.leave {
			q.left()
			return
		}
		if slow {
			time.Sleep(upTo(rng, 100*time.Millisecond))
		}
	}
	if !done {
		q.ended(nil)
	}
}

// received checks an item: the next of the right answer, from whom it says.
func (q *simRequest) received(item Item) int {
	s := q.s
	s.mu.Lock()
	defer s.mu.Unlock()
	v := q.visits[len(q.visits)-1]
	data, _ := item.Text()
	s.note("%s has item %d: %s", q.id, item.Index, data)
	if item.Index != q.got || !strings.HasSuffix(v.items[v.sent-1], data) || data == "" || !q.isAnswer(q.text()+data, false) {
		s.violate("%s: item %d, %q, behind %q", q.id, item.Index, data, q.items)
	}
	if item.Attempt != q.breaks+1 || *item.Peer.Instance != v.instance {
		s.violate("%s: an item of attempt %d from %s; it is attempt %d, at %s",
			q.id, item.Attempt, label(*item.Peer.Instance), q.breaks+1, label(v.instance))
	}
	if !s.cfg.Restart {
		q.keeps(v, data)
	}
	q.items = append(q.items, data)
	q.got++
	q.delivered = true
	return q.got
}

func (q *simRequest) left() {
	q.s.mu.Lock()
	defer q.s.mu.Unlock()
	q.over = "the caller has left"
	q.s.seen["left the loop"]++
}

// simEnds are the ways in which a request ends without its answer.
var simEnds = []error{
	stream.Application, ErrNoInstances, ErrAttemptsUsedUp, ErrOverloaded, ErrCannotResume, errBoom,
	context.Canceled, context.DeadlineExceeded,
}

// endOf returns the first of these that err is, or nil.
func endOf(err error) error {
	for _, end := range simEnds {
		if errors.Is(err, end) {
			return end
		}
	}
	return nil
}

// ended checks how the request ends.
func (q *simRequest) ended(err error) {
	s := q.s
	s.mu.Lock()
	defer s.mu.Unlock()
	end := endOf(err)
	s.seen["ended: "+fmt.Sprint(end)]++
	s.note("%s ends: %v", q.id, err)
	q.waiting = false
	if err == nil {
		switch {
		case q.over != complete:
			s.violate("%s: success, but no server has completed it (%s)", q.id, q.over)
		case !q.isAnswer(q.text(), true):
			s.violate("%s: success after %q of %d pieces", q.id, q.items, q.size)
		}
		return
	}
	ok := false
	switch {
	case q.over != "":
		ok = q.failed && errors.Is(end, stream.Application) || q.over == usedUp && errors.Is(end, ErrAttemptsUsedUp) ||
			q.over == stuck && errors.Is(end, ErrCannotResume)
	case q.ctx.Err() != nil:
		ok = errors.Is(err, q.ctx.Err())
	case len(q.visits) == 0 && s.firstShown.IsZero():
		ok = errors.Is(err, errBoom) || // it can't be read
			errors.Is(end, ErrNoInstances) && s.cfg.Wait > 0 && time.Since(q.began) == s.cfg.Wait
	case !q.listed:
		due := q.began.Add(s.cfg.Wait)
		if s.cfg.Wait == 0 && s.firstShown.After(due) {
			due = s.firstShown
		}
		ok = errors.Is(end, ErrNoInstances) && time.Now().Equal(due)
		if s.lostSome() {
			// These may have been tried then, in vain.
			ok = !time.Now().Before(due)
		}
	case q.hasCandidate():
		// It should have gone there.
	case errors.Is(end, ErrNoInstances):
		ok = time.Since(q.endedAt) >= s.cfg.WaitRestore && !q.hasDivergedLast()
	case errors.Is(end, ErrOverloaded):
		ok = q.overloads > 0
	case errors.Is(end, ErrCannotResume):
		ok = q.got > 0 && time.Since(q.endedAt) >= s.cfg.WaitRestore && (q.isStuck() || q.hasDivergedLast())
	}
	if !ok {
		s.violate("%s: ended with %q; over: %q, failed: %v, context: %v", q.id, err, q.over, q.failed, q.ctx.Err())
	}
	for _, v := range q.visits {
		if v.broke && !q.refusal(v) && q.ctx.Err() == nil && !errors.Is(err, v.brokeBy()) {
			s.violate("%s: the error %q lacks a cause: %s", q.id, err, v.brokeBy())
		}
	}
}

// isListed reports whether the source has shown the instance that the request asks
// for. The caller holds s.mu.
func (q *simRequest) isListed() bool {
	for _, i := range q.s.shown {
		if q.want == "" || i.Name == q.want {
			return true
		}
	}
	return false
}

// isStuck reports whether an instance is up that cannot carry the answer on. The caller
// holds s.mu.
func (q *simRequest) isStuck() bool {
	return slices.ContainsFunc(q.s.shown, func(i discovery.Instance) bool {
		v := q.visited(i)
		return !q.s.know(i).isDown && (v == nil && q.way(i) == "" || v != nil && v.kind == stream.Unresumable)
	})
}

// hasDivergedLast reports whether the newest break was an answer that differed. The
// caller holds s.mu.
func (q *simRequest) hasDivergedLast() bool {
	for _, v := range slices.Backward(q.visits) {
		if v.broke && !q.refusal(v) {
			return v.diverged
		}
	}
	return false
}

// isRefusedEnough reports whether the request asks no more. The caller holds s.mu.
func (q *simRequest) isRefusedEnough() bool { return q.overloads >= 2*q.s.cfg.Attempts }

// best returns the best rank that a listed instance has for the request. The
// caller holds s.mu.
func (q *simRequest) best() (best int) {
	for _, i := range q.s.shown {
		if r := q.rank(i); r != rankNone && (best == rankNone || r < best) {
			best = r
		}
	}
	return best
}

// hasCandidate reports whether there is an instance that the request could go
// to. The caller holds s.mu.
func (q *simRequest) hasCandidate() bool { return q.best() != rankNone }

// refusal reports whether a stream was refused rather than broken: for a reason
// that is not a failure, and before any item.
func (q *simRequest) refusal(v *visit) bool {
	refusals := []stream.Kind{stream.Overloaded, stream.Draining, stream.Misdirected, stream.Unresumable}
	return v.sent == 0 && slices.Contains(refusals, v.brokeBy())
}
