package stream

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"unicode/utf8"
)

// seedLines are lines of every kind, valid and invalid.
func seedLines() []string {
	return []string{
		`{"data":"hello"}`,
		`{"id":"b1946ac9","data":"hello"}`,
		`{"stream":7,"id":"b1946ac9","data":"hello","from":2,"attempt":2}`,
		`{"stream":7,"data":"hello","from":1,"prefix":[{"data":"h","event":"e"}]}`,
		`{"stream":7,"event":"start","id":"2"}`,
		`{"stream":7,"data":"from server: server1, data: l"}`,
		`{"stream":7,"data":"from server: server1, data: \""}`,
		`{"stream":7,"data":"from server: server1, data: é👩‍👧"}`,
		`{"stream":7,"data":"\ud83d\ude00 \ud800 \u0000"}`,
		`{"stream":7,"data":{"a":[1,2.5e3,true,null,"x"]},"id":"i","event":"e","comment":["a","b"]}`,
		`{"stream":7,"event":"end","id":"5"}`,
		`{"stream":7,"event":"error","comment":["Stream ended before generation completed"]}`,
		`{"stream":7,"event":"overloaded","comment":["full"]}`,
		`{"stream":7,"event":"draining","comment":["leaving"]}`,
		`{"stream":7,"event":"cancel"}`,
		`{"stream":7,"event":"credit","id":"65536"}`,
		`{"event":"ping"}`,
		`{"stream":7,"stream":8,"data":"h"}`,
		`{"stream":7,"data":"h","stream":null}`,
		`{"Stream":7,"DATA":"h"}`,
		`{"stream":07,"data":"h"}`,
		`{"stream":99999999999,"data":"h"}`,
		`{"stream":99999999999999999999,"data":"h"}`,
		`{"stream":-1,"data":"h"}`,
		`{"stream":7,"data":"h"} `,
		`{"stream":7,"data":"h"}}`,
		`{"stream":7,"data":"h","x":"}`,
		`{"stream":7,"data":"h`,
		`{"stream":7,"data":""}`,
		`{"stream":7,"data":"}`,
		"{\"stream\":7,\"data\":\"\xff\"}",
		"{\"stream\":7,\"data\":\"\x1f\"}",
		"{\"stream\":7,\"data\":\"\x7f\"}",
		`null`, `[]`, `"x"`, `7`, ``, `{`, `}`, ` `,
		"HTTP/1.1 400 Bad Request\r",
	}
}

// FuzzDecodeLine compares the shortcuts with the full parser, encoding/json.
func FuzzDecodeLine(f *testing.F) {
	for _, line := range seedLines() {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		full, fullErr := decode(line)
		if fullErr == nil && (!json.Valid(line) || !utf8.Valid(line)) {
			t.Fatal("decode took what is no JSON in UTF-8")
		}
		number, err := streamNumber(line)
		if err != nil {
			if fullErr == nil {
				t.Fatalf("streamNumber: %v, but the line is good", err)
			}
			return
		}
		a, err := decodeAnnotated(line, number, appendPrefix(nil, number))
		switch {
		case fullErr != nil:
			if err == nil {
				t.Fatalf("got %+v from a line that is bad: %v", a, fullErr)
			}
		case full.number() != number:
			if err == nil {
				t.Fatalf("got %+v for stream %d from a line for %d", a, number, full.number())
			}
		case err != nil:
			t.Fatalf("%v, but the line is good", err)
		default:
			want := Annotated{Data: full.Data, ID: full.ID, Event: full.Event, Comment: full.Comment}
			if !reflect.DeepEqual(a, want) {
				t.Fatalf("got %+v, want %+v", a, want)
			}
		}
	})
}

// FuzzDecodeData compares the decoding of data with encoding/json.
func FuzzDecodeData(f *testing.F) {
	for _, data := range []string{
		`"h"`, `""`, `"`, `"a\"b"`, `"a"b"`, `"\ud800"`, "\"\xff\"", "\"\x00\"", "\"\x7f\u2028\"", `null`, `1`, `["a"]`, ` "a" `,
		"{\n\"a\":\r\n1}",
	} {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var want *string // nil where data is no string
		if json.Unmarshal(data, &want) != nil {
			want = nil
		}
		if isPlainString(data) && (want == nil || *want != string(data[1:len(data)-1])) {
			t.Fatalf("%q is no plain string", data)
		}
		// Data comes without white space around it.
		if got, ok := text(bytes.Trim(data, " \t\r\n")); ok != (want != nil) || ok && got != *want {
			t.Fatalf("text %q, %v", got, ok)
		}
		got, err := onOneLine(data)
		if good := json.Valid(data) && utf8.Valid(data); (err == nil) != good {
			t.Fatalf("onOneLine: %v, want that data is good: %v", err, good)
		}
		if err != nil {
			return
		}
		if bytes.ContainsAny(got, "\r\n") {
			t.Fatalf("%q is more than one line", got)
		}
		var before, after any
		if err, err2 := json.Unmarshal(data, &before), json.Unmarshal(got, &after); err == nil && (err2 != nil || !reflect.DeepEqual(before, after)) {
			t.Fatalf("%q became %q", data, got)
		}
	})
}

// FuzzEncodeItem compares the encoder with encoding/json, and with the decoder:
// what is sent arrives.
func FuzzEncodeItem(f *testing.F) {
	f.Add(int64(7), "h", "", "", "")
	f.Add(int64(unnumbered), "a\"b\\c\n\x00\x1f\x7f", "id", "event", "comment")
	f.Add(int64(0), "\xff\u2028<&>", "\xc3", "\"", "\t")
	f.Fuzz(func(t *testing.T, number int64, s, id, event, comment string) {
		if number < unnumbered {
			return
		}
		item := Annotated{Data: String(s), ID: id, Event: event}
		if comment != "" {
			item.Comment = []string{comment, comment}
		}
		data, err := onOneLine(item.Data)
		if err != nil || !bytes.Equal(data, item.Data) {
			t.Fatalf("onOneLine(%q) = %q, %v", item.Data, data, err)
		}
		prefix := appendPrefix(nil, number)
		line, err := appendItem(nil, prefix, &item)
		if err != nil {
			return // too long
		}
		if n := bytes.IndexByte(line, '\n'); n != len(line)-1 {
			t.Fatalf("%q is not one line", line)
		}
		line = line[:len(line)-1]
		var want Annotated // by encoding/json both ways
		b, err := json.Marshal(Annotated{ID: id, Event: event, Comment: item.Comment})
		if err == nil {
			err = json.Unmarshal(b, &want)
		}
		if err != nil {
			t.Fatal(err)
		}
		var wantText string
		if b, err = json.Marshal(s); err == nil {
			err = json.Unmarshal(b, &wantText)
		}
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeAnnotated(line, number, prefix)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if text, ok := got.Text(); text != wantText || !ok {
			t.Fatalf("%q arrived as %q, want %q", s, text, wantText)
		}
		got.Data = nil
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v arrived, want %+v", got, want)
		}
		if n, err := streamNumber(line); n != number || err != nil {
			t.Fatalf("number %d arrived as %d, %v", number, n, err)
		}
	})
}

// FuzzEncodeRequest sends requests to the decoder.
func FuzzEncodeRequest(f *testing.F) {
	f.Add(int64(7), "b1946ac9", []byte(`"hello"`), 2, 2)
	f.Add(int64(unnumbered), "", []byte("{\"a\":\n[1]}"), 0, 0)
	f.Add(int64(0), "\xff\"", []byte("\xff"), -1, -1)
	f.Fuzz(func(t *testing.T, number int64, id string, data []byte, from, attempt int) {
		if number < unnumbered {
			return
		}
		req, err := newOutgoing(Request{ID: id, Data: data, From: from, Attempt: attempt})
		if err != nil {
			if json.Valid(data) && utf8.Valid(data) && from >= 0 && len(data)+6*len(id) < MaxLine-1000 && len(data) < maxDepth {
				t.Fatal(err)
			}
			return
		}
		line := appendRequest(nil, number, req.Request)
		if len(line) > req.size {
			t.Fatalf("%q is longer than the %d bytes that it may have", line, req.size)
		}
		if n := bytes.IndexByte(line, '\n'); n != len(line)-1 {
			t.Fatalf("%q is not one line", line)
		}
		fields, err := decode(line[:len(line)-1])
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		got, err := fields.request()
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		wantData, _ := onOneLine(data)
		want := Request{ID: string([]rune(id)), Data: wantData, From: from, Attempt: max(attempt, 1)}
		if !reflect.DeepEqual(got, want) || fields.number() != number {
			t.Fatalf("stream %d %+v arrived as stream %d %+v", number, want, fields.number(), got)
		}
	})
}

// FuzzPlainRequest compares the shortcut for requests with the full parser.
func FuzzPlainRequest(f *testing.F) {
	for _, seed := range []string{
		`{"stream":7,"id":"b1946ac9","data":"hello"}`,
		`{"stream":7,"id":"b1946ac9","data":"hello","from":2,"attempt":2}`,
		`{"stream":7,"id":"b1946ac9","data":"hello","from":2}`,
		`{"stream":7,"id":"b1946ac9","data":"hello","attempt":3}`,
		`{"stream":7,"id":"b1946ac9","data":"hello","attempt":3,"from":2}`,
		`{"stream":7,"id":"b1946ac9","data":"hello","from":0,"attempt":0}`,
		`{"stream":7,"id":"b1946ac9","data":"hello","from":02,"attempt":-1}`,
		`{"stream":7,"id":"b1946ac9","data":"hello","from":1234567890,"attempt":2}`,
		`{"stream":7,"id":"b1946ac9","data":"hello","from":99999999999999999999}`,
		`{"stream":7,"id":"b1946ac9","data":"hello","from":2e1,"attempt":2.5}`,
		`{"stream":7,"id":"b1946ac9","data":"hello","from":,"from":2}`,
		`{"stream":7,"id":"b1946ac9","data":"`,
		`{"stream":7,"id":"b1946ac9","data":`,
		`{"stream":0,"id":"","data":""}`,
		`{"stream":07,"id":"a","data":"b"}`,
		`{"stream":7,"id":"a","data":"b","stream":8}`,
		`{"stream":7,"id":"a","id":"b","data":"c"}`,
		`{"stream":7,"id":"a","data":"b","data":"c"}`,
		`{"stream":7,"id":"a","data":"é\n"}`,
		`{"stream":7,"id":"\"","data":"x"}`,
		`{"stream":7,"data":"x"}`,
		`{"id":"a","data":"x"}`,
		"{\"stream\":7,\"id\":\"a\",\"data\":\"\xff\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		number, got, ok := plainRequest(line)
		if !ok {
			return
		}
		full, err := decode(line)
		if err != nil {
			t.Fatalf("%q is not a line: %v", line, err)
		}
		want, err := full.request()
		if err != nil || full.Event != "" || number != full.number() || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %d %+v, want %d %+v, %v", line, number, got, full.number(), want, err)
		}
	})
}
