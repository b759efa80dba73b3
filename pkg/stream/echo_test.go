package stream_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

func TestEcho(t *testing.T) {
	addr := serve(t, echo("server1"))
	c := newClient(t, &stream.Client{})
	for _, s := range []string{
		"", "h", "hello", "héllo wörld", "👩‍👩‍👧 e\u0301", "a\"b\\c\n\r\t\x00\x1f</&>", "\u2028\u2029\ufffd",
		strings.Repeat("abcdefghij", 10_000),
	} {
		got, err := collect(t, c, addr, text(s))
		if err != nil || got != s {
			t.Errorf("echo of %.40q: got %.40q, %v", s, got, err)
		}
	}
}

func TestEchoItems(t *testing.T) {
	addr := serve(t, echo(`the "1st"`))
	got, err := items(t.Context(), newClient(t, &stream.Client{}), addr, text("h\n€"))
	want := `"from server: the \"1st\", data: h" "from server: the \"1st\", data: \n" "from server: the \"1st\", data: €"`
	if strings.Join(got, " ") != want || err != nil {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

func TestEchoWantsAString(t *testing.T) {
	addr := serve(t, echo("server1"))
	c := newClient(t, &stream.Client{})
	for _, data := range []string{`1`, `null`, `{"a":"b"}`, `["a"]`} {
		got, err := items(t.Context(), c, addr, stream.Request{Data: []byte(data)})
		if !errors.Is(err, stream.Application) || !strings.Contains(err.Error(), "not a string") || got != nil {
			t.Errorf("echo of %s: %s, %v", data, got, err)
		}
	}
}

func TestFrom(t *testing.T) {
	addr := serve(t, echo("server1"))
	c := newClient(t, &stream.Client{})
	for from, want := range []string{"héllo", "éllo", "llo", "lo", "o", ""} {
		got, err := collect(t, c, addr, stream.Request{Data: stream.String("héllo"), From: from})
		if err != nil || got != want {
			t.Errorf("from %d: got %q, %v", from, got, err)
		}
	}
	p := dialPeer(t, addr)
	p.say(`{"stream":1,"data":"hello","from":6}`)
	p.expect(`{"stream":1,"event":"start","id":"6"}`, `{"stream":1,"event":"unresumable","comment":["cannot start at item 6: the answer has 5"]}`)
	p = dialPeer(t, serve(t, &stream.Server{Handler: stream.Echo("s", 0)}))
	p.say(`{"stream":1,"data":"hello","from":1}`)
	p.expect(`{"stream":1,"event":"unresumable","comment":["cannot start at item 1: this server starts at the first only"]}`)
}

func TestEchoDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := servePipe(t, &stream.Server{Handler: stream.Echo("server1", 20*time.Millisecond)})
		c := newClient(t, &stream.Client{Dial: l.dial})
		begin := time.Now()
		if got, err := collect(t, c, "", text("hello")); got != "hello" || err != nil {
			t.Fatal(got, err)
		}
		// Between the items, so four times.
		if took := time.Since(begin); took != 80*time.Millisecond {
			t.Errorf("took %v, want 80ms", took)
		}
	})
}

// Echoed takes the character out of an item of Echo, and takes no other item for
// one.
func TestEchoed(t *testing.T) {
	for s, want := range map[string]string{
		"from server: server1, data: h":        "h",
		"from server: a, data: b, data: ,":     ",",
		"from server: , data: \n":              "\n",
		"from server: server1":                 "none",
		"hello, data: h":                       "none",
		"":                                     "none",
		"a quote: from server: server1, data:": "none",
	} {
		char, ok := stream.Echoed(stream.Annotated{Data: stream.String(s)})
		if !ok {
			char = "none"
		}
		if char != want {
			t.Errorf("%q has %q, want %q", s, char, want)
		}
	}
	if _, ok := stream.Echoed(stream.Annotated{Data: []byte(`{"data":"x"}`)}); ok {
		t.Error("an object is taken for an item of Echo")
	}
}
