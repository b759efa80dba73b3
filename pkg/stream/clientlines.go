package stream

import (
	"bytes"
	"errors"
	"fmt"
)

// readLines yields the items in lines and reports whether the stream is complete.
func (st *clientStream) readLines(lines []byte, yield func(Annotated, error) bool) (complete bool, err error) {
	st.seen = true
	for len(lines) > 0 {
		var line []byte
		line, lines = cutLine(lines)
		if data, ok := plainItem(line, st.prefix); ok && st.started {
			st.next++
			if !yield(Annotated{Data: st.items.keep(data, len(lines))}, nil) {
				return false, errLeft
			}
			continue
		}
		a, err := decodeAnnotated(line, st.number, st.prefix)
		if err != nil {
			return false, badLine(line, err)
		}
		if a.Event != "" {
			if complete, err = st.event(a); complete || err != nil {
				return complete, err
			}
			if isControl(a.Event) {
				continue
			}
		}
		if len(a.Data) == 0 {
			continue // a remark, or an event of a newer server
		}
		if !st.started {
			return false, badLine(line, errors.New("an item before the start"))
		}
		st.next++
		if !yield(a, nil) {
			return false, errLeft
		}
	}
	return false, nil
}

// slab is memory for the items of a stream, which come in bursts: one
// allocation then serves many small ones. An item that is kept keeps a slab.
type slab struct{ free []byte }

// slabSize bounds what one item that is kept can hold in memory besides itself.
const slabSize = 2 << 10

// keep returns a copy of data. No more than more bytes will be asked for soon.
func (s *slab) keep(data []byte, more int) []byte {
	n := len(data)
	if n > len(s.free) {
		if n > slabSize/8 {
			return bytes.Clone(data)
		}
		s.free = make([]byte, min(n+more, slabSize))
	}
	kept := s.free[:n:n]
	s.free = s.free[n:]
	copy(kept, data)
	return kept
}

func isControl(event string) bool {
	switch event {
	case eventStart, eventEnd, eventError, eventOverloaded, eventDraining, eventMisdirected, eventUnresumable, eventPing:
		return true
	}
	return false
}

// event acts on a line with an event. It reports whether the stream is
// complete, and returns the break that the line is.
func (st *clientStream) event(a Annotated) (complete bool, err error) {
	broken := func(format string, args ...any) (bool, error) {
		return false, &Break{Kind: Protocol, Reason: fmt.Sprintf(format, args...)}
	}
	switch a.Event {
	case eventStart:
		n, err := index(a.Event, a.ID)
		switch {
		case err != nil:
			return broken("%v", err)
		case st.started:
			return broken("a second start")
		case n != st.req.From:
			return broken("server starts at item %d, not at %d", n, st.req.From)
		}
		st.started = true
		if hooks := st.req.Hooks; hooks != nil && hooks.Started != nil {
			hooks.Started()
		}
		return false, nil
	case eventEnd:
		st.over = true
		n, err := index(a.Event, a.ID)
		switch {
		case err != nil:
			return broken("%v", err)
		case !st.started:
			return broken("an end before the start")
		case n != st.next:
			return broken("server counts %d items, %d came", n, st.next)
		}
		return true, nil
	}
	if b := said(a); b != nil {
		st.over = true
		switch {
		case b.Kind == Misdirected && st.started:
			return broken("misdirected after the start")
		case (b.Kind == Overloaded || b.Kind == Unresumable) && st.next > st.req.From:
			return broken("%s after an item", a.Event)
		}
		return false, b
	}
	if !st.started && !isControl(a.Event) {
		st.over = true
		return false, unknownRefusal(a)
	}
	return false, nil
}
