package router

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/internal/kept"
	"github.com/request-migration/migrate/pkg/stream"
)

// Instances that resume by index all give the same answer in the same items. Of the
// others, some put two pieces of the answer into an item, and some give another answer.

func isCoarse(i discovery.Instance) bool { return !byIndex(i) && i.ID%2 == 0 }

func givesAnother(i discovery.Instance) bool { return !byIndex(i) && i.ID%5 == 0 }

// byIndex reports whether i says that it resumes by index, or does not say how.
func byIndex(i discovery.Instance) bool {
	return i.Resume == discovery.ResumeIndex || i.Resume == ""
}

// pieces returns the pieces of one of the two answers.
func (q *simRequest) pieces(another bool) []string {
	mark := ":"
	if another {
		mark = ";"
	}
	all := make([]string, q.size)
	for n := range all {
		all[n] = fmt.Sprintf("%s%s%d", q.id, mark, n)
	}
	return all
}

// isAnswer reports whether text is one of the two answers, or the beginning of one.
func (q *simRequest) isAnswer(text string, whole bool) bool {
	for _, another := range []bool{false, true} {
		answer := strings.Join(q.pieces(another), "")
		if text == answer || !whole && strings.HasPrefix(answer, text) {
			return true
		}
	}
	return false
}

// answerOf returns the items that i sends when it is asked in a way. The caller holds
// s.mu.
func (q *simRequest) answerOf(i discovery.Instance, way Way) []string {
	pieces := q.pieces(givesAnother(i))
	switch way {
	case WayIndex:
		return pieces[q.got:]
	case WayPrefix:
		begun := q.text()
		pieces = q.pieces(strings.HasPrefix(begun, strings.Join(q.pieces(true)[:1], "")))
		for begun != "" {
			begun = strings.TrimPrefix(begun, pieces[0])
			pieces = pieces[1:]
		}
	case WayRestart, WayReplay:
	}
	if !isCoarse(i) {
		return pieces
	}
	var items []string
	for pair := range slices.Chunk(pieces, 2) {
		items = append(items, strings.Join(pair, ""))
	}
	return items
}

// text returns what the caller has. The caller holds s.mu.
func (q *simRequest) text() string { return strings.Join(q.items, "") }

// way returns how the request is to be carried on at i, as the contract has it; "" if it
// can't be. The caller holds s.mu.
func (q *simRequest) way(i discovery.Instance) Way {
	switch {
	case q.got == 0 || q.s.cfg.Restart:
		return WayRestart
	case q.isKept && q.unresumable:
		return WayReplay
	case byIndex(i) && q.isNumbered:
		return WayIndex
	case !q.isKept:
		return ""
	case i.Resume == discovery.ResumePrefix:
		return WayPrefix
	}
	return WayReplay
}

// asks returns the way in which req asks; "" if it is none. The caller holds s.mu.
func (q *simRequest) asks(req stream.Request) Way {
	switch {
	case q.got == 0 || q.s.cfg.Restart:
		if req.From == 0 && req.Prefix == nil {
			return WayRestart
		}
	case req.From == 0 && req.Prefix == nil:
		return WayReplay
	case req.From == q.got && req.Prefix == nil:
		return WayIndex
	case req.From == q.got && joinText(req.Prefix) == q.text() && len(req.Prefix) == q.got:
		return WayPrefix
	}
	return ""
}

// keeps notes what the item that the caller gets in a visit means for carrying on. The
// caller holds s.mu.
func (q *simRequest) keeps(v *visit, item string) {
	s := q.s
	if q.got == 0 {
		q.isNumbered = true
		q.isKept = len(s.shown) == 0 || slices.ContainsFunc(s.shown, func(i discovery.Instance) bool { return i.Resume != discovery.ResumeIndex })
	}
	switch v.way {
	case WayPrefix:
		q.isNumbered, q.isJoined = false, true
	case WayReplay:
		if !v.undivided {
			q.isJoined = true
		}
		q.isNumbered = byIndex(v.instance) && !q.isJoined
	case WayIndex, WayRestart:
		q.isNumbered = q.isNumbered && byIndex(v.instance)
	}
	q.kept += len(stream.String(item)) + kept.BesideItem
	if limit := s.cfg.MaxPrefix; limit > 0 && q.kept > limit && q.isKept {
		q.isKept = false
		s.seen["too long to be kept"]++
	}
}

// hasBetter reports whether another instance of the same rank can carry the answer on in
// a better way. The caller holds s.mu.
func (q *simRequest) hasBetter(i discovery.Instance, rank int) bool {
	if rank == rankAgain || rank == rankNone || rank == rankLost {
		return false
	}
	order := []Way{WayRestart, WayIndex, WayPrefix, WayReplay}
	for _, other := range q.s.shown {
		if q.rank(other) == rank && slices.Index(order, q.way(other)) < slices.Index(order, q.way(i)) {
			return true
		}
	}
	return false
}

// brokeBy returns how the stream broke, as its request saw it. The caller holds s.mu.
func (v *visit) brokeBy() stream.Kind {
	if v.diverged {
		return stream.Diverged
	}
	return v.kind
}

// differs notes that the router has left a stream, as it must where the answer differs
// from what the caller has, and may where the caller has left.
func (v *visit) differs() {
	s, q := v.s, v.q
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.over != "" {
		return
	}
	if !v.isOther {
		s.violate("%s: the stream at %s is left", q.id, label(v.instance))
		return
	}
	s.note("%s diverges at %s", q.id, label(v.instance))
	s.seen["diverged"]++
	v.diverged, v.says, v.broke = true, stream.Break{}, true
	q.endedAt = time.Now()
	q.breaks++
	q.spent++
	if q.diverged++; q.diverged == 2 || q.spent == s.cfg.Attempts {
		q.over = stuck
	}
	k := s.know(v.instance)
	if k.trial == v {
		k.trial = nil
	}
	q.candidates, q.waiting = q.hasCandidate(), q.over == ""
}
