package stream

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestDecode(t *testing.T) {
	n := func(i int64) *int64 { return &i }
	for _, tt := range []struct {
		line string
		want fields
		err  string // part of it; "" for none
	}{
		{line: `{}`},
		{line: `{"data":"hello"}`, want: fields{Data: json.RawMessage(`"hello"`)}},
		{
			line: ` { "stream" : 7 , "id" : "b1" , "data" : [ 1 ] , "from" : 2 , "attempt" : 3 } `,
			want: fields{Stream: n(7), ID: "b1", Data: json.RawMessage(`[ 1 ]`), From: 2, Attempt: 3},
		},
		{line: `{"data":null}`, want: fields{Data: json.RawMessage(`null`)}},
		{line: `{"data":"x","id":null,"comment":null,"stream":null}`, want: fields{Data: json.RawMessage(`"x"`)}},
		{line: `{"data":"x","later":{"nested":[1,2]}}`, want: fields{Data: json.RawMessage(`"x"`)}},
		{line: `{"event":"error","comment":["a","b"]}`, want: fields{Event: "error", Comment: []string{"a", "b"}}},
		{line: `{"stream":9223372036854775807,"data":0}`, want: fields{Stream: n(1<<63 - 1), Data: json.RawMessage(`0`)}},
		{line: ``, err: "unexpected end"},
		{line: `{`, err: "unexpected end"},
		{line: `[]`, err: "cannot unmarshal array"},
		{line: `"hello"`, err: "cannot unmarshal string"},
		{line: `{"data":"x"}{"data":"y"}`, err: "after top-level value"},
		{line: `{"data":'x'}`, err: "invalid character"},
		{line: `{"id":5}`, err: "cannot unmarshal number"},
		{line: `{"comment":"one"}`, err: "cannot unmarshal string"},
		{line: `{"from":1.5}`, err: "cannot unmarshal number"},
		{line: `{"stream":07,"data":0}`, err: "invalid character"},
		{line: `{"stream":-1}`, err: "below 0"},
		{line: `{"stream":9223372036854775808}`, err: "cannot unmarshal number"},
		{line: "{\"data\":\"\xff\"}", err: "not UTF-8"},
		{line: `{"data":"` + strings.Repeat("x", MaxLine) + `"}`, err: "longer than 1048576 bytes"},
	} {
		f, err := decode([]byte(tt.line))
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("decode(%.60q) = %v, want an error with %q", tt.line, err, tt.err)
			}
		case err != nil || !reflect.DeepEqual(f, tt.want):
			t.Errorf("decode(%.60q) = %+v, %v, want %+v", tt.line, f, err, tt.want)
		}
	}
}

func TestDecodeAnnotated(t *testing.T) {
	for _, tt := range []struct {
		line string
		want Annotated
		err  string
	}{
		{line: `{"stream":7,"data":"h"}`, want: Annotated{Data: json.RawMessage(`"h"`)}},
		{line: `{"stream":7,"data":"h\n"}`, want: Annotated{Data: json.RawMessage(`"h\n"`)}},
		{line: `{"data":"h","stream":7}`, want: Annotated{Data: json.RawMessage(`"h"`)}},
		{line: `{"stream":7,"data":{"a":1}}`, want: Annotated{Data: json.RawMessage(`{"a":1}`)}},
		{line: `{"stream":7,"data":"h","data":"i"}`, want: Annotated{Data: json.RawMessage(`"i"`)}},
		{
			line: `{"stream":7,"data":"h","id":"1","event":"e","comment":["c"]}`,
			want: Annotated{Data: json.RawMessage(`"h"`), ID: "1", Event: "e", Comment: []string{"c"}},
		},
		{line: `{"stream":7}`},
		{line: `{"stream":7,"stream":8,"data":"h"}`, err: "two stream numbers"},
		{line: `{"stream":7,"data":"h","stream":null}`, err: "two stream numbers"},
		{line: `{"stream":7,"data":"h`, err: "unexpected end"},
		{line: `{"stream":7,"data":"h"}}`, err: "invalid character"},
		{line: "{\"stream\":7,\"data\":\"\x01\"}", err: "invalid character"},
		{line: "{\"stream\":7,\"data\":\"\xed\xa0\x80\"}", err: "not UTF-8"},
		{line: `{"stream":7,"data":"` + strings.Repeat("x", MaxLine) + `"}`, err: "longer than"},
	} {
		a, err := decodeAnnotated([]byte(tt.line), 7, appendPrefix(nil, 7))
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%.60q: %v, want an error with %q", tt.line, err, tt.err)
			}
		case err != nil || !reflect.DeepEqual(a, tt.want):
			t.Errorf("%.60q: %+v, %v, want %+v", tt.line, a, err, tt.want)
		}
	}
}

func TestDecodedItemIsACopy(t *testing.T) {
	for _, line := range []string{`{"stream":7,"data":"plain"}`, `{"stream":7,"data":[1]}`} {
		b := []byte(line)
		a, err := decodeAnnotated(b, 7, appendPrefix(nil, 7))
		if err != nil {
			t.Fatal(err)
		}
		want := string(a.Data)
		clear(b)
		if string(a.Data) != want {
			t.Errorf("data of %s changed with the buffer, to %q", line, a.Data)
		}
	}
}

func TestStreamNumber(t *testing.T) {
	for line, want := range map[string]int64{
		`{"data":"h"}`:                        unnumbered,
		`{"event":"ping"}`:                    unnumbered,
		`{"stream":0,"data":"h"}`:             0,
		`{"stream":7,"data":"h"}`:             7,
		`{"stream":7}`:                        7,
		`{"stream": 7,"data":"h"}`:            7,
		`{"data":"h","stream":7}`:             7,
		`{"stream":4294967296,"data":"h"}`:    1 << 32,
		`{"stream":99999999999,"data":"h"}`:   99999999999,
		`{"stream":999999999999,"event":"x"}`: 999999999999,
	} {
		if got, err := streamNumber([]byte(line)); got != want || err != nil {
			t.Errorf("streamNumber(%s) = %d, %v, want %d", line, got, err, want)
		}
	}
	for _, line := range []string{
		`{"stream":`, `{"stream":,"data":"h"}`, `{"stream":07,"data":"h"}`, `{"stream":00,"data":"h"}`,
		`{"stream":-7,"data":"h"}`, `{"stream":7.0,"data":"h"}`, `{"stream":"7","data":"h"}`, `garbage`, ``,
		`{"stream":99999999999999999999,"data":"h"}`,
	} {
		if n, err := streamNumber([]byte(line)); err == nil {
			t.Errorf("streamNumber(%s) = %d, want an error", line, n)
		}
	}
}

func TestIndex(t *testing.T) {
	for id, want := range map[string]int{"0": 0, "5": 5, "65536": 65536, "007": 7} {
		if got, err := index(eventEnd, id); got != want || err != nil {
			t.Errorf("index(%q) = %d, %v, want %d", id, got, err, want)
		}
	}
	for _, id := range []string{"", "-1", "+1", "-0", "1.0", "1e3", "x", " 1", "9223372036854775808"} {
		if got, err := index(eventEnd, id); err == nil {
			t.Errorf("index(%q) = %d, want an error", id, got)
		}
	}
}

func TestRequestFields(t *testing.T) {
	for line, want := range map[string]Request{
		`{"data":"h"}`:            {Data: json.RawMessage(`"h"`), Attempt: 1},
		`{"data":null,"id":"a"}`:  {Data: json.RawMessage(`null`), ID: "a", Attempt: 1},
		`{"data":1,"attempt":-4}`: {Data: json.RawMessage(`1`), Attempt: 1},
		`{"data":{},"from":3}`:    {Data: json.RawMessage(`{}`), From: 3, Attempt: 1},
		`{"data":1,"from":2,"prefix":[{"data":"a"},{"data":{},"event":"e"}]}`: {
			Data: json.RawMessage(`1`), From: 2, Attempt: 1,
			Prefix: []Annotated{{Data: json.RawMessage(`"a"`)}, {Data: json.RawMessage(`{}`), Event: "e"}},
		},
		`{"data":1,"from":2,"prefix":null}`: {Data: json.RawMessage(`1`), From: 2, Attempt: 1},
		`{"data":1,"prefix":[]}`:            {Data: json.RawMessage(`1`), Attempt: 1},
		`{"data":[],"attempt":12}`:          {Data: json.RawMessage(`[]`), Attempt: 12},
	} {
		f, err := decode([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := f.request(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v, want %+v", line, got, err, want)
		}
	}
	for line, want := range map[string]string{
		`{"id":"a"}`:             `"data" is missing`,
		`null`:                   `"data" is missing`,
		`{"data":"h","from":-1}`: `"from" is -1`,
		`{"data":1,"from":1,"prefix":[{"data":1},{"data":2}]}`:  `more than 1 items`,
		`{"data":1,"prefix":[{"data":1}]}`:                      `more than 0 items`,
		`{"data":1,"from":2,"prefix":[{"data":1111111111111}]}`: `has 1 items, want "from" of them, 2`,
		`{"data":1,"from":9,"prefix":[{"data":1}]}`:             `cannot hold 9 items`,
		`{"data":1,"from":1,"prefix":[{"event":"start"}]}`:      `item 0, has no data`,
		`{"data":1,"from":1,"prefix":{"data":1111}}`:            `is not a list`,
		`{"data":1,"from":1,"prefix":["data 123456"]}`:          `"prefix", item 0`,
	} {
		f, err := decode([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.request(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

// The shortcut must accept what this package sends, or it saves nothing.
func TestPlainRequestTakesOurs(t *testing.T) {
	for _, want := range []Request{
		{ID: "b1946ac9", Data: String("hello"), Attempt: 1},
		{ID: "b1946ac9", Data: String("hello"), From: 2, Attempt: 1},
		{ID: "b1946ac9", Data: String("hello"), From: 123456789, Attempt: 2},
		{ID: "b1946ac9", Data: String("hello"), Attempt: 3},
		{ID: "b1946ac9", To: "p/llm/chat/4d2", Data: String("hello"), Attempt: 3, Timeout: 1500 * time.Millisecond},
	} {
		line := appendRequest(nil, 7, want)
		number, got, ok := plainRequest(bytes.TrimSuffix(line, []byte("\n")))
		if !ok || number != 7 || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is read as %d %+v, %v", line, number, got, ok)
		}
	}
}
