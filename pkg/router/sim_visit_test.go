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
)

var errSimulationOver = errors.New("the simulation is over")

// visit is one stream: what its server will do, and how far it came.
type visit struct {
	s        *sim
	q        *simRequest
	instance discovery.Instance
	from     int

	kind  stream.Kind   // how it breaks; "" completes
	at    int           // index of the first item that is not sent
	how   int           // which way of that kind, on the wire
	lag   time.Duration // before the first line
	pace  time.Duration // before each further item
	delay time.Duration // before the end or the break

	sent  int // items; guarded by s.mu
	broke bool
}

// Stream makes the simulation the router's [Client]. Around what the server does
// it checks what the router does.
func (s *sim) Stream(ctx context.Context, addr string, req stream.Request) iter.Seq2[stream.Annotated, error] {
	return func(yield func(stream.Annotated, error) bool) {
		v := s.opened(addr, req)
		if v == nil {
			yield(stream.Annotated{}, errSimulationOver)
			return
		}
		defer v.closed()
		answer := v.direct(ctx)
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
			v.sent++
			s.mu.Unlock()
			if !yield(a, nil) {
				return
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
	k := slices.IndexFunc(s.shown, func(i discovery.Instance) bool { return i.Address == addr })
	if k < 0 {
		s.violate("%s goes to %s, which is not listed", req.ID, addr)
		return nil
	}
	i := s.shown[k]
	s.note("%s opens a stream at %s from %d", q.id, label(i), req.From)
	if s.cfg.Restart {
		q.got = 0
	}
	waited := time.Since(q.endedAt)
	switch {
	case q.over != "":
		s.violate("%s: another stream, at %s, after %s", q.id, label(i), q.over)
	case q.hasVisited(i.ID):
		s.violate("%s: a second time at %s", q.id, label(i))
	case s.isDown(i.ID):
		s.violate("%s goes to %s, which is down until %v", q.id, label(i), s.down[i.ID].Until.Sub(s.begin))
	case req.From != q.got:
		s.violate("%s: wants items from %d, but has %d", q.id, req.From, q.got)
	case req.Attempt != q.breaks+1:
		s.violate("%s: attempt %d after %d breaks", q.id, req.Attempt, q.breaks)
	case q.candidates && waited > 0:
		s.violate("%s: a retry after %v; there was an instance at once", q.id, waited)
	case len(q.visits) == 0 && q.prefersAnother(i):
		s.violate("%s: goes to %s, not to %s, which it asked for", q.id, label(i), q.want)
	default:
		s.sees(q, req.From, waited)
		v := s.script(q, i, req.From)
		q.visits = append(q.visits, v)
		q.waiting = false
		s.open++
		return v
	}
	return nil
}

// prefersAnother reports whether an instance that the request asks for by name
// was there and up. The caller holds s.mu.
func (q *simRequest) prefersAnother(than discovery.Instance) bool {
	for _, i := range q.s.shown {
		if i.Name == q.want && i != than {
			d, down := q.s.down[i.ID]
			return !down || time.Now().After(d.Until)
		}
	}
	return false
}

// sees counts what is worth seeing in a simulation.
func (s *sim) sees(q *simRequest, from int, waited time.Duration) {
	for what, yes := range map[string]bool{
		"waited for a first instance": waited > 0 && len(q.visits) == 0,
		"waited for one to return":    waited > 0 && len(q.visits) > 0,
		"resumed":                     from > 0,
		"only the end lost":           from > 0 && from == q.size,
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
	if err == nil {
		q.over = complete
		if s.records[v.instance.ID] == v.instance {
			delete(s.failures, v.instance.ID)
		}
		return
	}
	s.note("%s breaks at %s: %v", q.id, label(v.instance), err)
	v.broke = true
	where := "direct "
	if s.wire != nil {
		where = "on the wire "
	}
	s.seen[where+string(v.kind)]++
	switch v.kind {
	case stream.Application:
		q.failed, q.over = true, hopeless
		return
	case stream.Overloaded:
		q.refused = true
	case stream.Draining:
		if v.sent > 0 {
			q.breaks++
		}
	default:
		q.breaks++
		q.spent++
		s.blame(v.instance, v.kind)
		if q.spent == s.cfg.Attempts {
			q.over = usedUp
		}
	}
	q.candidates, q.waiting = q.hasCandidate(), q.over == ""
}

func (v *visit) closed() {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	v.s.open--
}
