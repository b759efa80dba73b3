package router

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// Why no more streams may be opened for a request.
const (
	complete = "it was complete"
	usedUp   = "its attempts were used up"
	hopeless = "it failed in a way of its own"
	stuck    = "its answer began anew otherwise"
)

var errSimulationOver = errors.New("the simulation is over")

// visit is one stream: what its server will do, and how far it came.
type visit struct {
	s        *sim
	q        *simRequest
	instance discovery.Instance
	way      Way
	from     int    // on the wire
	prefix   string // likewise

	items     []string // of its answer, from there on
	undivided bool     // a replay: they begin with those that the caller has
	isOther   bool     // a replay: the answer differs

	kind   stream.Kind   // how it breaks; "" completes
	says   stream.Break  // what else the break says, without a wire
	n      int           // how many items are sent
	how    int           // which way of that kind, on the wire
	lag    time.Duration // before the first line
	pace   time.Duration // before each further item
	delay  time.Duration // before the end or the break
	starts bool          // it says that it has taken the request

	// Guarded by s.mu.
	began time.Time
	sent  int // items
	broke bool
	// diverged: its answer differed from what the caller has, which no server knows.
	diverged bool
	owed     bool      // it has not answered yet
	again    time.Time // of a break: when it may be asked again
}

// Stream implements [Client]. It plays the server, and checks what the router does.
func (s *sim) Stream(ctx context.Context, i discovery.Instance, req stream.Request) iter.Seq2[stream.Annotated, error] {
	addr := i.Address
	return func(yield func(stream.Annotated, error) bool) {
		v := s.opened(addr, req)
		if v == nil {
			yield(stream.Annotated{}, errSimulationOver)
			return
		}
		defer v.closed()
		hooks := *req.Hooks
		started := hooks.Started
		hooks.Started = func() {
			s.mu.Lock()
			v.answered()
			s.mu.Unlock()
			started()
		}
		req.Hooks = &hooks
		answer := v.direct(ctx, req)
		if s.wire != nil {
			answer = v.onTheWire(ctx, req)
		}
		for a, err := range answer {
			if err != nil {
				v.ended(ctx, err)
				yield(stream.Annotated{}, err)
				return
			}
			s.mu.Lock()
			if v.sent++; v.sent == 1 {
				v.answered()
				s.serves(v.instance, v.began)
				v.q.overloads = 0
			}
			s.mu.Unlock()
			if !yield(a, nil) {
				v.differs()
				return
			}
			if v.isOther {
				s.fail("%s: an answer that differs goes on", v.q.id)
			}
		}
		v.ended(ctx, nil)
	}
}

// opened checks a stream that the router opens, and draws what will become of it.
func (s *sim) opened(addr string, req stream.Request) *visit {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.requests[req.ID]
	i, ok := s.everShown[addr]
	if !ok {
		s.violate("%s goes to %s, which was never listed", req.ID, addr)
		return nil
	}
	s.note("%s opens a stream at %s from %d", q.id, label(i), req.From)
	if s.cfg.Restart {
		q.got, q.items = 0, nil
	}
	waited := time.Since(q.endedAt)
	named := len(q.visits) == 0 && i.Name == q.want
	rank, best := q.rank(i), q.best()
	// In panic a request asks once an instance that it would not ask otherwise.
	panics := (rank == rankNone || q.isRefusedEnough()) && best == rankNone && s.cfg.Panic && !q.panicked && !q.delivered
	to := ""
	if i.Incarnation != "" {
		to = i.Record()
	}
	switch {
	case q.over != "":
		s.violate("%s: another stream, at %s, after %s", q.id, label(i), q.over)
	case named && !panics && s.know(i).isDown:
		s.violate("%s goes to %s, which is down", q.id, label(i))
	case !named && !panics && rank == rankNone:
		s.violate("%s goes to %s, which is not to be asked", q.id, label(i))
	case !named && !panics && rank != rankLost && best != rank:
		s.violate("%s goes to %s of rank %d; there is one of rank %d", q.id, label(i), rank, best)
	case !named && rank == rankLost && best != rankNone && best != rankAgain:
		s.violate("%s goes to %s, which is lost; there is one of rank %d", q.id, label(i), best)
	case q.asks(req) != q.way(i):
		s.violate("%s: wants items from %d, with %d before, and has %d: %s; want %s", q.id, req.From, len(req.Prefix), q.got, q.asks(req), q.way(i))
	case !named && !panics && q.hasBetter(i, rank):
		s.violate("%s goes to %s, which carries on by %s; there is a better way", q.id, label(i), q.way(i))
	case req.Attempt != q.breaks+1:
		s.violate("%s: attempt %d after %d breaks", q.id, req.Attempt, q.breaks)
	case req.To != to:
		s.violate("%s: to %q, want %q", q.id, req.To, to)
	case q.candidates && waited > 0:
		s.violate("%s: a retry after %v; there was an instance at once", q.id, waited)
	case len(q.visits) == 0 && q.prefersAnother(i):
		s.violate("%s: goes to %s, not to %s, which it asked for", q.id, label(i), q.want)
	default:
		s.sees(q, i, waited)
		s.seen[[]string{"panic", "ready", "passed over", "reported, yet asked", "lost, yet asked", "brought back"}[rank]]++
		if panics {
			q.panicked = true
		}
		return s.openVisit(q, i, rank)
	}
	return nil
}

// openVisit notes the stream that is opened. The caller holds mu.
func (s *sim) openVisit(q *simRequest, i discovery.Instance, rank int) *visit {
	v := s.script(q, i, q.way(i))
	v.began, v.owed = time.Now(), true
	k := s.know(i)
	if k.half && k.trial == nil {
		k.trial = v
	}
	if rank != rankReady && v.began.Before(k.backoff) {
		q.askedBackingOff = true
	}
	if k.owing == 0 {
		k.life = v.began
	}
	k.owing++
	q.visits = append(q.visits, v)
	q.waiting = false
	s.open++
	return v
}

// answered notes that the server has answered. The caller holds mu.
func (v *visit) answered() {
	if v.owed {
		v.owed = false
		k := v.s.know(v.instance)
		k.owing--
		k.life = time.Now()
	}
}

// prefersAnother reports whether an instance that the request asks for by name
// was there and up. The caller holds s.mu.
func (q *simRequest) prefersAnother(than discovery.Instance) bool {
	for _, i := range q.s.shown {
		if i.Name == q.want && i != than {
			return !q.s.know(i).isDown
		}
	}
	return false
}

// sees counts what is worth seeing in a simulation.
func (s *sim) sees(q *simRequest, i discovery.Instance, waited time.Duration) {
	way := q.way(i)
	for what, yes := range map[string]bool{
		"waited for a first instance": waited > 0 && len(q.visits) == 0,
		"waited for one to return":    waited > 0 && len(q.visits) > 0,
		"by index":                    way == WayIndex,
		"by prefix":                   way == WayPrefix,
		"by replay":                   way == WayReplay,
		"by replay after a refusal":   way == WayReplay && q.visited(i) != nil && q.refusal(q.visited(i)),
		"only the end lost":           way != WayRestart && q.isAnswer(q.text(), true),
		"restarted from 0":            q.breaks > 0 && s.cfg.Restart && q.visits[len(q.visits)-1].sent > 0,
		"before the first item":       q.breaks > 0 && q.visits[len(q.visits)-1].sent == 0,
	} {
		if yes {
			s.seen[what]++
		}
	}
}

// ended notes how a stream ended, as its client saw it.
func (v *visit) ended(ctx context.Context, err error) {
	s, q := v.s, v.q
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && kindOf(err) == "" && ctx.Err() != nil {
		return // the caller's own doing
	}
	q.endedAt = time.Now()
	if kindOf(err) != v.kind || (err == nil) != (v.kind == "") {
		s.violate("%s: the stream at %s is to end with %q, not with %v", q.id, label(v.instance), v.kind, err)
		return
	}
	k := s.know(v.instance)
	if err == nil {
		q.over = complete
		v.answered()
		s.serves(v.instance, v.began)
		k.failures = 0
		return
	}
	s.note("%s breaks at %s: %v", q.id, label(v.instance), err)
	v.broke = true
	where := "direct "
	switch {
	case s.servers != nil:
		where = "of a real server "
	case s.wire != nil:
		where = "on the wire "
	}
	s.seen[where+string(v.kind)]++
	b, _ := errors.AsType[*stream.Break](err)
	switch v.kind {
	case stream.Application:
		v.answered()
		s.serves(v.instance, v.began)
		q.failed, q.over = true, hopeless
		return
	case stream.Overloaded:
		v.answered()
		s.serves(v.instance, v.began)
		q.overloads++
		if !s.isReplaced(v.instance) {
			asked := b.RetryAfter
			if asked == 0 {
				asked = time.Second
			}
			k.backoff = time.Now().Add(min(asked, 30*time.Second))
		}
	case stream.Draining:
		k.draining = true
		if v.sent > 0 {
			q.breaks++
			v.again = time.Now().Add(s.cfg.Cooldown)
		}
	case stream.Unresumable:
		q.unresumable = true
	case stream.Misdirected:
		s.isReported(v.instance, b)
	default:
		q.breaks++
		if b.Paused {
			s.seen["paused"]++
			if q.pauses++; q.pauses > s.cfg.Attempts {
				q.spent++
			}
		} else {
			q.spent++
			if !s.isReported(v.instance, b) {
				v.again = time.Now().Add(s.cfg.Cooldown)
			}
		}
		if q.spent == s.cfg.Attempts {
			q.over = usedUp
		}
	}
	if v.kind != stream.Overloaded && !k.left.IsZero() {
		k.failed = true
	}
	if k.trial == v {
		k.trial = nil
	}
	v.forget()
	q.candidates, q.waiting = q.hasCandidate(), q.over == ""
}

// forget notes that no answer is awaited any more. The caller holds mu.
func (v *visit) forget() {
	if v.owed {
		v.owed = false
		v.s.know(v.instance).owing--
	}
}

func (v *visit) closed() {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	v.s.open--
	v.forget()
	if k := v.s.know(v.instance); k.trial == v {
		k.trial = nil
	}
}

// visited returns the request's last stream at the instance, or nil. Streams that broke
// because this process was paused do not count. The caller holds mu.
func (q *simRequest) visited(i discovery.Instance) *visit {
	for _, v := range slices.Backward(q.visits) {
		if v.instance.Same(i) && (!v.broke || !v.says.Paused) {
			return v
		}
	}
	return nil
}
