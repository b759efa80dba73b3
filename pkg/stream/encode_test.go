package stream

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestAppendItem(t *testing.T) {
	for _, tt := range []struct {
		stream int64
		item   Annotated
		want   string
	}{
		{unnumbered, Annotated{Data: String("h")}, `{"data":"h"}`},
		{7, Annotated{Data: String("h")}, `{"stream":7,"data":"h"}`},
		{0, Annotated{Data: json.RawMessage("null")}, `{"stream":0,"data":null}`},
		{7, Annotated{Data: json.RawMessage("{\n \"a\" : [ 1 , 2 ]\r\n}")}, `{"stream":7,"data":{"a":[1,2]}}`},
		{
			unnumbered, Annotated{Data: String("h"), ID: "i\"", Event: "e", Comment: []string{"a\n", "b"}},
			`{"data":"h","id":"i\"","event":"e","comment":["a\n","b"]}`,
		},
		{unnumbered, Annotated{Data: String("<a href='&'>\u2028")}, "{\"data\":\"<a href='&'>\u2028\"}"},
	} {
		data, err := onOneLine(tt.item.Data)
		if err != nil {
			t.Fatal(err)
		}
		tt.item.Data = data
		got, err := appendItem([]byte("before"), appendPrefix(nil, tt.stream), &tt.item)
		if want := "before" + tt.want + "\n"; string(got) != want || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
}

func TestLongestItem(t *testing.T) {
	prefix := appendPrefix(nil, 7)
	room := MaxLine - len(prefix) - len(`"data":""}`)
	line, err := appendItem([]byte("before\n"), prefix, &Annotated{Data: String(strings.Repeat("x", room))})
	if err != nil {
		t.Fatalf("the longest line there may be: %v", err)
	}
	line = line[len("before\n") : len(line)-1]
	if len(line) != MaxLine {
		t.Errorf("it has %d bytes, want %d", len(line), MaxLine)
	}
	if _, err := decodeAnnotated(line, 7, prefix); err != nil {
		t.Errorf("reading it: %v", err)
	}
	got, err := appendItem([]byte("before\n"), prefix, &Annotated{Data: String(strings.Repeat("x", room+1))})
	if err == nil || string(got) != "before\n" {
		t.Errorf("a longer one: %.20q, %v, want an error and nothing added", got, err)
	}
}

func TestOnOneLineRefuses(t *testing.T) {
	for data, want := range map[string]string{
		"":                "not JSON",
		"hello":           "not JSON",
		`"a`:              "not JSON",
		`"a""b"`:          "not JSON",
		`{"a":1}{}`:       "not JSON",
		"\"a\nb\"":        "not JSON",
		"\"\xff\"":        "not UTF-8",
		"{\"\xc3\":\"\"}": "not UTF-8",
	} {
		if got, err := onOneLine(json.RawMessage(data)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("onOneLine(%q) = %q, %v, want an error with %q", data, got, err, want)
		}
	}
}

func TestAppendEvents(t *testing.T) {
	p := appendPrefix(nil, 7)
	for want, got := range map[string][]byte{
		`{"stream":7,"event":"start","id":"2"}`:           appendIndexEvent(nil, p, eventStart, 2),
		`{"stream":7,"event":"end","id":"1000000"}`:       appendIndexEvent(nil, p, eventEnd, 1000000),
		`{"stream":7,"event":"credit","id":"65536"}`:      appendIndexEvent(nil, p, eventCredit, 65536),
		`{"stream":7,"event":"cancel"}`:                   appendEvent(nil, p, eventCancel, ""),
		`{"event":"ping"}`:                                appendEvent(nil, appendPrefix(nil, unnumbered), eventPing, ""),
		`{"stream":7,"event":"error","comment":["\"\\"]}`: appendEvent(nil, p, eventError, `"\`),
	} {
		if string(got) != want+"\n" {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestLongCommentIsCut(t *testing.T) {
	line := appendEvent(nil, appendPrefix(nil, 7), eventError, strings.Repeat("€", 2000))
	a, err := decodeAnnotated(line[:len(line)-1], 7, appendPrefix(nil, 7))
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Repeat("€", maxComment/3); a.Comment[0] != want {
		t.Errorf("a comment of 6000 bytes came out with %d, want %d: whole characters", len(a.Comment[0]), len(want))
	}
}

func TestAppendRequest(t *testing.T) {
	for _, tt := range []struct {
		stream int64
		req    Request
		want   string
	}{
		{unnumbered, Request{Data: String("hello")}, `{"data":"hello"}`},
		{unnumbered, Request{ID: "b1946ac9", Data: String("hello"), Attempt: 1}, `{"id":"b1946ac9","data":"hello"}`},
		{
			7, Request{ID: "b1946ac9", Data: String("hello"), From: 2, Attempt: 2},
			`{"stream":7,"id":"b1946ac9","data":"hello","from":2,"attempt":2}`,
		},
		{
			7, Request{Data: String("x"), From: 2, Prefix: []Annotated{{Data: String("h")}, {Data: json.RawMessage("{\n}"), ID: "i", Event: "e", Comment: []string{"c"}}}},
			`{"stream":7,"data":"x","from":2,"prefix":[{"data":"h"},{"data":{},"id":"i","event":"e","comment":["c"]}]}`,
		},
		{7, Request{Data: json.RawMessage("[\n1\n]")}, `{"stream":7,"data":[1]}`},
	} {
		req, err := newOutgoing(tt.req)
		if got := appendRequest(nil, tt.stream, req.Request); string(got) != tt.want+"\n" || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, tt.want)
		}
	}
	for want, req := range map[string]Request{
		"not JSON":             {},
		"not UTF-8":            {Data: json.RawMessage("\"\xff\"")},
		"it starts at item -1": {Data: String("x"), From: -1},
		"more than 1048576":    {Data: String(strings.Repeat("x", MaxLine))},
		"more than 2000000":    {Data: String(strings.Repeat("x", 2_000_000)), MaxSize: 2_000_000},
		"nested 10000 deep":    {Data: json.RawMessage(strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth))},
		"has 1 items, want":    {Data: String("x"), From: 2, Prefix: []Annotated{{Data: String("h")}}},
		"item 0, has no data":  {Data: String("x"), From: 1, Prefix: []Annotated{{Event: "e"}}},
		"item 0 of its prefix": {Data: String("x"), From: 1, Prefix: []Annotated{{Data: json.RawMessage("}")}}},
		"more than 1048577":    {Data: String("x"), MaxSize: 1048577, From: 1, Prefix: []Annotated{{Data: String(strings.Repeat("x", MaxLine))}}},
		"lower case":           {Data: String("x"), Headers: map[string]string{"A": "b"}},
	} {
		if _, err := newOutgoing(req); !errors.Is(err, ErrInvalidRequest) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want an invalid request and %q", err, want)
		}
	}
}

func TestText(t *testing.T) {
	for _, s := range []string{
		"", "h", "héllo", "👩‍👩‍👧", "e\u0301", "a\"b\\c/", "\n\r\t\x00\x1f\x7f", "\u2028\u2029\ufffd", "<&>",
	} {
		if got, ok := (Annotated{Data: String(s)}).Text(); got != s || !ok {
			t.Errorf("Text of %q: %q, %v", s, got, ok)
		}
	}
	if got, _ := (Annotated{Data: String("a\xffb")}).Text(); got != "a\ufffdb" {
		t.Errorf("invalid UTF-8 became %q", got)
	}
	for _, data := range []string{``, `1`, `null`, `{"a":"b"}`, `"a`, `"`, `"\x"`} {
		if got, ok := (&Request{Data: json.RawMessage(data)}).Text(); ok {
			t.Errorf("Text of %s: %q, want none", data, got)
		}
	}
}
