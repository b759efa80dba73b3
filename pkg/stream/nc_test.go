package stream_test

import (
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/request-migration/migrate/pkg/stream"
)

// hi is the answer of the echo server1 to hi, without a number.
func hi() []string {
	return []string{
		`{"event":"start","id":"0"}`,
		`{"data":"from server: server1, data: h"}`,
		`{"data":"from server: server1, data: i"}`,
		`{"event":"end","id":"2"}`,
	}
}

func TestPersonWithNC(t *testing.T) {
	p := dialPeer(t, serve(t, echo("server1")))
	p.say(`{"data":"hi"}`)
	p.expect(hi()...)
	p.say(`{"data":"hi","colour":"red","nested":{"data":"no"},"id":"b1946ac9","attempt":3}`)
	p.expect(hi()...)
	p.say("", "  ", "\r", ` { "from" : 1 , "data" : "hi" } `+"\r")
	p.expect(`{"event":"start","id":"1"}`, `{"data":"from server: server1, data: i"}`, `{"event":"end","id":"2"}`)
	p.say(`{"data":""}`)
	p.expect(`{"event":"start","id":"0"}`, `{"event":"end","id":"0"}`)
}

func TestBadLinesGetAnErrorLine(t *testing.T) {
	p := dialPeer(t, serve(t, echo("server1")))
	for line, want := range map[string]string{
		`hello`:                     `not a request: invalid character 'h' looking for beginning of value; one looks like {\"data\":\"hello\"}`,
		`{"data":"hi"`:              `not a request: unexpected end of JSON input; one looks like {\"data\":\"hello\"}`,
		`"hi"`:                      `not a request: json: cannot unmarshal string`,
		"{\"data\":\"\xff\"}":       `not a request: line is not UTF-8; one`,
		`{}`:                        `not a request: \"data\" is missing"]}`,
		`{"id":"x"}`:                `not a request: \"data\" is missing"]}`,
		`{"data":"hi","from":-1}`:   `not a request: \"from\" is -1, want 0 or more"]}`,
		`{"data":"hi","stream":-1}`: `not a request: stream number is below 0; one`,
	} {
		p.say(line)
		if got := p.line(); !strings.HasPrefix(got, `{"event":"error","comment":["`+want) {
			t.Errorf("%q is answered by %s, want %s", line, got, want)
		}
		p.say(`{"data":"hi"}`)
		p.expect(hi()...)
	}
	p.say(`{"stream":7,"from":1}`)
	p.expect(`{"stream":7,"event":"error","comment":["not a request: \"data\" is missing"]}`)
	p.say(`{"event":"sing"}`, `{"stream":3,"event":"cancel"}`, `{"stream":3,"event":"credit","id":"1"}`, `{"data":"hi"}`)
	p.expect(hi()...)
}

// Requests without a number that are sent at once are answered one by one.
func TestPipelined(t *testing.T) {
	const n = 100
	p := dialPeer(t, serve(t, echo("server1")))
	go p.say(strings.Repeat(`{"data":"hi"}`+"\n", n))
	for range n {
		p.expect(hi()...)
	}
}

func TestNumberedAndUnnumberedAtOnce(t *testing.T) {
	release := make(chan struct{})
	s := &stream.Server{Handler: func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		if err := send(stream.Annotated{Data: req.Data}); err != nil {
			return err
		}
		if string(req.Data) != `"fast"` {
			<-release
		}
		return nil
	}}
	p := dialPeer(t, serve(t, s))
	p.say(`{"stream":0,"data":"a"}`)
	p.expect(`{"stream":0,"event":"start","id":"0"}`, `{"stream":0,"data":"a"}`)
	p.say(`{"data":"b"}`)
	p.expect(`{"event":"start","id":"0"}`, `{"data":"b"}`)
	p.say(`{"data":"fast"}`) // waits for the one before it
	p.say(`{"stream":9007199254740993,"data":"fast"}`)
	p.expect(`{"stream":9007199254740993,"event":"start","id":"0"}`, `{"stream":9007199254740993,"data":"fast"}`,
		`{"stream":9007199254740993,"event":"end","id":"1"}`)
	p.say(`{"stream":0,"event":"cancel"}`, `{"stream":0,"data":"fast"}`)
	p.expect(`{"stream":0,"event":"start","id":"0"}`, `{"stream":0,"data":"fast"}`, `{"stream":0,"event":"end","id":"1"}`)
	close(release)
	p.expect(`{"event":"end","id":"1"}`, `{"event":"start","id":"0"}`, `{"data":"fast"}`, `{"event":"end","id":"1"}`)
}

func TestNumberInUse(t *testing.T) {
	s := &stream.Server{Handler: func(ctx context.Context, _ *stream.Request, _ func(stream.Annotated) error) error {
		<-ctx.Done()
		return ctx.Err()
	}}
	p := dialPeer(t, serve(t, s))
	p.say(`{"stream":7,"data":"a"}`)
	p.expect(`{"stream":7,"event":"start","id":"0"}`)
	p.say(`{"stream":7,"data":"b"}`)
	p.expect(`{"event":"error","comment":["stream number is in use"]}`)
	p.expectEOF()
}

func TestOverLongLine(t *testing.T) {
	addr := serve(t, echo("server1"))
	// The longest allowed line is a request like others.
	p := dialPeer(t, addr)
	go p.say(`{"data":"hi","x":"` + strings.Repeat("x", stream.MaxLine-len(`{"data":"hi","x":""}`)) + `"}`)
	p.expect(hi()...)
	// A longer one ends the connection: where the next line begins is not known
	// yet. The reason arrives although the client is still sending.
	p = dialPeer(t, addr)
	go p.say(strings.Repeat("x", 3*stream.MaxLine))
	p.expect(`{"event":"error","comment":["line is longer than 1048576 bytes"]}`)
	p.expectEOF()
}

// Half a line is not a request, even if it would be one with a newline.
func TestHalfARequest(t *testing.T) {
	var asked atomic.Int32
	s := &stream.Server{Handler: func(context.Context, *stream.Request, func(stream.Annotated) error) error {
		asked.Add(1)
		return nil
	}}
	p := dialPeer(t, serve(t, s))
	if _, err := io.WriteString(p, `{"data":"hi"}`); err != nil {
		t.Fatal(err)
	}
	if err := p.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	p.expectEOF()
	if asked.Load() > 0 {
		t.Error("the handler was called")
	}
}
