package router

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/request-migration/migrate/pkg/stream"
)

// replay compares an answer that began anew with the items that the caller has, and
// tells what of it is new. Text is compared as one, however it is divided into items;
// any other value is compared at its place, with its event. Remarks about the answer (see
// [stream.Annotated.IsRemark]) are not compared.
type replay struct {
	known []stream.Annotated // what the caller has
	at    int                // the known item that is due; events and empty texts are passed over
	text  string             // what is due of its text
	value []byte             // its value, if it is no text
	event string             // and the value's event

	came     int  // items that came before the end of the known part, events included
	same     bool // each of them equals the known one at its place
	trailing int  // events that may be those after the last known item
}

func newReplay(known []stream.Annotated) *replay {
	r := &replay{known: known, same: true}
	for _, a := range slices.Backward(known) {
		if !a.IsRemark() {
			break
		}
		r.trailing++
	}
	r.due()
	return r
}

// due makes the known item at r.at, or the next after it that can be compared, the one
// that is due.
func (r *replay) due() {
	for ; r.at < len(r.known); r.at++ {
		a := r.known[r.at]
		if a.IsRemark() {
			continue
		}
		text, ok := textOf(a)
		if !ok {
			r.value, r.event = compact(a.Data), a.Event
			return
		}
		if text != "" {
			r.text = text
			return
		}
	}
}

// isOver reports whether the whole known part has come.
func (r *replay) isOver() bool { return r.at == len(r.known) }

// undivided reports whether the known part came item by item as the caller has it. An
// index then means the same at this instance as for the caller.
func (r *replay) undivided() bool { return r.isOver() && r.same && r.came == len(r.known) }

// next takes the next item that came, and returns what of it is new, if anything is.
func (r *replay) next(a stream.Annotated) (news stream.Annotated, isNew bool, err error) {
	if a.IsRemark() {
		if r.isOver() && r.trailing == 0 {
			return a, true, nil
		}
		if r.isOver() {
			r.trailing--
		}
		r.passed(a)
		return stream.Annotated{}, false, nil
	}
	if r.isOver() {
		r.trailing = 0
		return a, true, nil
	}
	text, isText := textOf(a)
	if !isText {
		if r.text != "" || r.value == nil || r.event != a.Event || !bytes.Equal(compact(a.Data), r.value) {
			return stream.Annotated{}, false, r.diverged()
		}
		r.passed(a)
		r.advance()
		return stream.Annotated{}, false, nil
	}
	left := text
	for left != "" && !r.isOver() {
		n := min(len(left), len(r.text))
		if n == 0 || left[:n] != r.text[:n] {
			return stream.Annotated{}, false, r.diverged()
		}
		left, r.text = left[n:], r.text[n:]
		if r.text == "" {
			r.advance()
		}
	}
	r.passed(a)
	if left == "" {
		return stream.Annotated{}, false, nil
	}
	r.trailing = 0
	return withText(a, left), true, nil
}

// end returns an error if the answer ended before the end of the known part.
func (r *replay) end() error {
	if r.isOver() {
		return nil
	}
	return &stream.Break{Kind: stream.Diverged, Reason: fmt.Sprintf("the answer ended at item %d of the %d that the caller has", r.at, len(r.known))}
}

func (r *replay) diverged() error {
	return &stream.Break{Kind: stream.Diverged, Reason: fmt.Sprintf("item %d differs from the one that the caller has", r.at)}
}

// passed notes an item of which nothing, or only the end, is new.
func (r *replay) passed(a stream.Annotated) {
	r.same = r.same && r.came < len(r.known) && isSame(a, r.known[r.came])
	r.came++
}

// advance goes on to the next known item.
func (r *replay) advance() {
	r.at++
	r.text, r.value, r.event = "", nil, ""
	r.due()
}

func isSame(a, b stream.Annotated) bool {
	return a.ID == b.ID && a.Event == b.Event && slices.Equal(a.Comment, b.Comment) &&
		(bytes.Equal(a.Data, b.Data) || bytes.Equal(compact(a.Data), compact(b.Data)))
}

// textOf returns what of an item is compared as text. A string with half a surrogate pair
// is no text, since reading it would lose which half it is.
func textOf(a stream.Annotated) (text string, ok bool) {
	text, ok = a.Content()
	if ok && strings.ContainsRune(text, '\uFFFD') && bytes.Contains(bytes.ToLower(a.Data), []byte(`\ud`)) {
		return "", false
	}
	return text, ok
}

// withText returns a with another text.
func withText(a stream.Annotated, text string) stream.Annotated {
	if a.Data[0] != '{' {
		a.Data = stream.String(text)
		return a
	}
	var object map[string]json.RawMessage
	err := json.Unmarshal(a.Data, &object)
	if err == nil {
		object["text"] = stream.String(text)
		a.Data, err = json.Marshal(object)
	}
	if err != nil {
		panic(err) // textOf has read it
	}
	return a
}

// compact returns data without insignificant space.
func compact(data json.RawMessage) []byte {
	var b bytes.Buffer
	if json.Compact(&b, data) != nil {
		return data
	}
	return b.Bytes()
}
