package stream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// fields are all fields that a line can have, in either direction. Other fields
// are ignored.
type fields struct {
	Stream  *int64          `json:"stream"`
	ID      string          `json:"id"`
	Data    json.RawMessage `json:"data"`
	Event   string          `json:"event"`
	Comment []string        `json:"comment"`
	From    int             `json:"from"`
	Attempt int             `json:"attempt"`

	To        string            `json:"to"`
	TimeoutMS int64             `json:"timeout_ms"`
	Headers   map[string]string `json:"headers"`
	Prefix    json.RawMessage   `json:"prefix"`
}

var (
	errNotUTF8     = errors.New("line is not UTF-8")
	errStreamRange = errors.New("stream number is below 0")
	errTwoStreams  = errors.New("line has two stream numbers")
	errNoData      = errors.New(`"data" is missing`)
)

// decode reads any line in full. The shortcuts below return the same, only
// sooner.
func decode(line []byte) (fields, error) {
	if len(line) > MaxLine {
		return fields{}, errLineTooLong
	}
	return decodeLong(line)
}

// decodeLong is decode for lines whose length the reader has bounded.
func decodeLong(line []byte) (fields, error) {
	var f fields
	if !utf8.Valid(line) {
		return f, errNotUTF8
	}
	if err := json.Unmarshal(line, &f); err != nil {
		return f, err
	}
	if f.Stream != nil && *f.Stream < 0 {
		return f, errStreamRange
	}
	return f, nil
}

// number returns the stream number of the line.
func (f *fields) number() int64 {
	if f.Stream == nil {
		return unnumbered
	}
	return *f.Stream
}

// annotated returns the line as one of an answer.
func (f *fields) annotated() Annotated {
	return Annotated{Data: f.Data, ID: f.ID, Event: f.Event, Comment: f.Comment}
}

// decodeAnnotated reads a line of an answer on the given stream, whose lines
// begin with prefix. The result shares no memory with line.
func decodeAnnotated(line []byte, number int64, prefix []byte) (Annotated, error) {
	if data, ok := plainItem(line, prefix); ok {
		return Annotated{Data: bytes.Clone(data)}, nil
	}
	if event, id, ok := indexEvent(line, prefix); ok {
		return Annotated{Event: event, ID: id}, nil
	}
	f, err := decode(line)
	if err != nil {
		return Annotated{}, err
	}
	if f.number() != number {
		return Annotated{}, errTwoStreams // streamNumber has only seen the first
	}
	return f.annotated(), nil
}

// plainItem returns the data of a line that is just an item, in the form that
// [appendItem] writes, with a string as data. Nearly all lines are of
// that form.
func plainItem(line, prefix []byte) ([]byte, bool) {
	const field = `"data":`
	rest, ok := bytes.CutPrefix(line, prefix)
	if !ok || len(rest) < len(field)+1 || string(rest[:len(field)]) != field {
		return nil, false
	}
	data, ok := bytes.CutSuffix(rest[len(field):], []byte("}"))
	return data, ok && len(line) <= MaxLine && isString(data)
}

// indexEvent reads a line that is just a start or an end, in the form that
// [appendIndexEvent] writes.
func indexEvent(line, prefix []byte) (event, id string, ok bool) {
	rest, ok := bytes.CutPrefix(line, prefix)
	if !ok {
		return "", "", false
	}
	const start, end = `"event":"start","id":"`, `"event":"end","id":"`
	if rest, ok = bytes.CutPrefix(rest, []byte(start)); ok {
		event = eventStart
	} else if rest, ok = bytes.CutPrefix(rest, []byte(end)); ok {
		event = eventEnd
	} else {
		return "", "", false
	}
	rest, ok = bytes.CutSuffix(rest, []byte(`"}`))
	for _, c := range rest {
		ok = ok && '0' <= c && c <= '9'
	}
	return event, string(rest), ok && len(line) <= MaxLine
}

// plainRequest reads a line that is just a numbered request with an id and
// plain data, and perhaps to, from, attempt and timeout_ms, in the form that
// [appendRequest] writes.
func plainRequest(line []byte) (number int64, r Request, ok bool) {
	number, err := streamNumber(line)
	if err != nil || number == unnumbered || len(line) > MaxLine {
		return 0, Request{}, false
	}
	_, rest, _ := bytes.Cut(line, []byte{','})
	rest, ok = bytes.CutPrefix(rest, []byte(`"id":`))
	if !ok {
		return 0, Request{}, false
	}
	id, rest, ok := bytes.Cut(rest, []byte(`,"data":`))
	if !ok || len(rest) == 0 {
		return 0, Request{}, false
	}
	id, to, hasTo := bytes.Cut(id, []byte(`,"to":`))
	if !isPlainString(id) || hasTo && !isPlainString(to) {
		return 0, Request{}, false
	}
	end := bytes.IndexByte(rest[1:], '"') + 2 // after the closing quote, if any
	data, rest := rest[:end], rest[end:]
	r = Request{ID: string(id[1 : len(id)-1]), Attempt: 1}
	if hasTo {
		r.To = string(to[1 : len(to)-1])
	}
	rest = plainCount(rest, `,"from":`, &r.From)
	rest = plainCount(rest, `,"attempt":`, &r.Attempt)
	timeoutMS := 0
	rest = plainCount(rest, `,"timeout_ms":`, &timeoutMS)
	r.Timeout = time.Duration(timeoutMS) * time.Millisecond
	if string(rest) != "}" || !isPlainString(data) {
		return 0, Request{}, false
	}
	r.Data = bytes.Clone(data)
	return number, r, true
}

// plainCount cuts a field with a count above zero off the front of rest, if it
// is there, and sets n.
func plainCount(rest []byte, field string, n *int) []byte {
	const maxDigits = 9 // a longer number may overflow an int
	digits, ok := bytes.CutPrefix(rest, []byte(field))
	if !ok || len(digits) == 0 || digits[0] == '0' {
		return rest
	}
	count, i := 0, 0
	for ; i < min(len(digits), maxDigits) && '0' <= digits[i] && digits[i] <= '9'; i++ {
		count = count*10 + int(digits[i]-'0')
	}
	if i == 0 {
		return rest
	}
	*n = count
	return digits[i:]
}

// streamNumber returns the number of the stream that a line belongs to. The
// line may still turn out not to be JSON, or to have a second number.
func streamNumber(line []byte) (int64, error) {
	const field = `{"stream":`
	if len(line) > len(field) && string(line[:len(field)]) == field {
		n, i := int64(0), len(field)
		for ; i < len(line) && '0' <= line[i] && line[i] <= '9' && n < math.MaxInt32; i++ {
			n = n*10 + int64(line[i]-'0')
		}
		// JSON has no leading zeros: the full parser refuses 07.
		digits := i - len(field)
		if digits > 0 && (digits == 1 || line[len(field)] != '0') && i < len(line) && line[i] == ',' {
			return n, nil
		}
	}
	if isPing(line) {
		return unnumbered, nil
	}
	f, err := decode(line)
	if err != nil {
		return 0, err
	}
	return f.number(), nil
}

// isPing reports whether a line is a ping in the form in which a server sends it. Nothing
// else comes on a connection whose streams are silent.
func isPing(line []byte) bool { return string(line) == `{"event":"ping"}` }

// leadingStream returns the stream number with which a line begins. The rest of
// the line may be anything.
func leadingStream(line []byte) (number int64, ok bool) {
	for _, want := range []string{"{", `"stream"`, ":"} {
		if line, ok = bytes.CutPrefix(bytes.TrimLeft(line, " \t\r"), []byte(want)); !ok {
			return 0, false
		}
	}
	line = bytes.TrimLeft(line, " \t\r")
	end := 0
	for end < len(line) && '0' <= line[end] && line[end] <= '9' {
		end++
	}
	rest := bytes.TrimLeft(line[end:], " \t\r")
	if len(rest) == 0 || rest[0] != ',' && rest[0] != '}' || end > 1 && line[0] == '0' {
		return 0, false
	}
	number, err := strconv.ParseInt(string(line[:end]), 10, 64)
	return number, err == nil
}

// index reads the number in the id of a start, end or credit line.
func index(event, id string) (int, error) {
	n, err := strconv.ParseUint(id, 10, strconv.IntSize-1)
	if err != nil {
		return 0, fmt.Errorf("%s line with id %q, want a count", event, id)
	}
	return int(n), nil
}

// request returns the line as a request.
func (f *fields) request() (Request, error) {
	switch {
	case len(f.Data) == 0:
		return Request{}, errNoData
	case f.From < 0:
		return Request{}, fmt.Errorf(`"from" is %d, want 0 or more`, f.From)
	case f.TimeoutMS < 0:
		return Request{}, fmt.Errorf(`"timeout_ms" is %d, want 0 or more`, f.TimeoutMS)
	}
	if err := checkHeaders(f.Headers); err != nil {
		return Request{}, err
	}
	prefix, err := f.prefix()
	if err != nil {
		return Request{}, err
	}
	return Request{
		ID: f.ID, To: f.To, Data: f.Data, From: f.From, Prefix: prefix, Attempt: max(f.Attempt, 1),
		Timeout: time.Duration(min(f.TimeoutMS, maxTimeoutMS)) * time.Millisecond, Headers: f.Headers,
	}, nil
}

// prefix returns the items of the prefix; nil if there is none.
func (f *fields) prefix() ([]Annotated, error) {
	if len(f.Prefix) == 0 || string(f.Prefix) == "null" {
		return nil, nil
	}
	// An item needs {"data":0}, so that a line cannot be made to take up many times its
	// length.
	if limit := len(f.Prefix) / len(`{"data":0}`); f.From > limit {
		return nil, fmt.Errorf(`"prefix" cannot hold %d items, want "from" of them`, f.From)
	}
	items := make([]Annotated, 0, f.From)
	d := json.NewDecoder(bytes.NewReader(f.Prefix))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, errors.New(`"prefix" is not a list`)
	}
	for len(items) < f.From && d.More() {
		var a Annotated
		if err := d.Decode(&a); err != nil {
			return nil, fmt.Errorf(`"prefix", item %d: %w`, len(items), err)
		}
		items = append(items, a)
	}
	if d.More() {
		return nil, fmt.Errorf(`"prefix" has more than %d items, want "from" of them`, f.From)
	}
	if len(items) == 0 {
		return nil, nil
	}
	return items, checkPrefix(items, f.From)
}

// checkPrefix returns what is wrong with the items before from, or nil.
func checkPrefix(prefix []Annotated, from int) error {
	if len(prefix) != from {
		return fmt.Errorf(`"prefix" has %d items, want "from" of them, %d`, len(prefix), from)
	}
	for i, a := range prefix {
		if len(a.Data) == 0 {
			return fmt.Errorf(`"prefix", item %d, has no data`, i)
		}
	}
	return nil
}

// maxTimeoutMS is a year: longer than any use, and far from overflowing a
// duration.
const maxTimeoutMS = 365 * 24 * 3600 * 1000

// checkHeaders returns what is wrong with a request's headers, or nil.
func checkHeaders(headers map[string]string) error {
	size := 0
	for name, value := range headers {
		size += len(name) + len(value)
		if name == "" || strings.ToLower(name) != name {
			return fmt.Errorf(`"headers" has the name %q, want one in lower case`, name)
		}
	}
	if size > MaxHeaders {
		return fmt.Errorf(`"headers" has %d bytes, more than %d`, size, MaxHeaders)
	}
	return nil
}
