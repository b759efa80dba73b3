package stream

import (
	"errors"
	"fmt"
)

// readLines yields the items in lines and reports whether the stream is complete.
func (st *clientStream) readLines(lines []byte, yield func(Annotated, error) bool) (complete bool, err error) {
	st.seen = true
	for len(lines) > 0 {
		var line []byte
		line, lines = cutLine(lines)
		a, err := decodeAnnotated(line, st.number, st.prefix)
		if err != nil {
			return false, st.conn.protocol(line, err)
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
			return false, st.conn.protocol(line, errors.New("an item before the start"))
		}
		st.next++
		if !yield(a, nil) {
			return false, errLeft
		}
	}
	return false, nil
}

func isControl(event string) bool {
	switch event {
	case eventStart, eventEnd, eventError, eventOverloaded, eventDraining, eventPing:
		return true
	}
	return false
}

// event acts on a line with an event. It reports whether the stream is
// complete, and returns the break that the line is.
func (st *clientStream) event(a Annotated) (complete bool, err error) {
	broken := func(k Kind, format string, args ...any) (bool, error) {
		return false, &Break{Kind: k, Reason: fmt.Sprintf(format, args...)}
	}
	switch a.Event {
	case eventEnd, eventError, eventOverloaded, eventDraining:
		st.over = true
	}
	switch a.Event {
	case eventStart:
		n, err := index(a.Event, a.ID)
		switch {
		case err != nil:
			return broken(Protocol, "%v", err)
		case st.started:
			return broken(Protocol, "a second start")
		case n != st.req.From:
			return broken(Protocol, "server starts at item %d, not at %d", n, st.req.From)
		}
		st.started = true
	case eventEnd:
		n, err := index(a.Event, a.ID)
		switch {
		case err != nil:
			return broken(Protocol, "%v", err)
		case !st.started:
			return broken(Protocol, "an end before the start")
		case n != st.next:
			return broken(Protocol, "server counts %d items, %d came", n, st.next)
		}
		return true, nil
	case eventError:
		if a.comment() == brokenText {
			return broken(Failed, "%s", brokenText)
		}
		return broken(Application, "%s", a.comment())
	case eventOverloaded:
		if st.started {
			return broken(Protocol, "overloaded after the start")
		}
		return broken(Overloaded, "%s", a.comment())
	case eventDraining:
		return broken(Draining, "%s", a.comment())
	}
	return false, nil
}
