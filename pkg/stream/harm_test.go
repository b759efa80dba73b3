package stream_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/request-migration/migrate/pkg/stream"
)

// badLines are lines on which no server can act, without the brace and the
// number at the beginning, and the answer to each.
func badLines() map[string]string {
	return map[string]string{
		`"data":` + strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001) + `}`: "not a request: invalid character",
		`"data":"hi"`:                "not a request: unexpected end of JSON input",
		`"data":"hi"}}`:              "not a request: invalid character",
		`"data":"` + "\xff" + `"}`:   "not a request: line is not UTF-8",
		`"data":hi}`:                 "not a request: invalid character",
		`"data":"hi","from":"x"}`:    "not a request: json: cannot unmarshal",
		`"data":"hi","headers":[7]}`: "not a request: json: cannot unmarshal",
		`"data":"hi","from":-1}`:     `not a request: \"from\" is -1`,
		`"from":1}`:                  `not a request: \"data\" is missing`,
		`"data":"` + strings.Repeat("x", stream.MaxLine) + `"}`:      "line is longer than 1048576 bytes",
		`"data":"` + strings.Repeat("x", 30*stream.MaxLine) + `"}`:   "line is longer than 1048576 bytes",
		`"event":"cancel","id":` + strings.Repeat("[", 10_001) + `}`: "not a request: invalid character",
	}
}

// A line that cannot be understood only affects the stream that it names,
// whether that runs or not.
func TestBadLineHarmsItsStream(t *testing.T) {
	for line, want := range badLines() {
		t.Run(fmt.Sprintf("%.20q", line), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan error, 1)
				l := servePipe(t, &stream.Server{Handler: func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
					if string(req.Data) != `"hi"` {
						<-ctx.Done()
						if string(req.Data) == `"b"` {
							ended <- context.Cause(ctx)
						}
						return ctx.Err()
					}
					return send(stream.Annotated{Data: req.Data})
				}})
				conn, err := l.dial(t.Context(), "")
				if err != nil {
					t.Fatal(err)
				}
				p := newPeer(t, conn)
				p.say(`{"stream":1,"data":"a"}`)
				p.expect(`{"stream":1,"event":"start","id":"0"}`)
				p.say(`{"stream":2,"data":"b"}`)
				p.expect(`{"stream":2,"event":"start","id":"0"}`)
				for _, prefix := range []string{`{"stream":7,`, `{"stream":2,`, `{ "stream" : 7 , `, `{"stream":9007199254740993,`} {
					go p.say(prefix + line)
					begin := strings.ReplaceAll(prefix, " ", "") + `"event":"error","comment":["` + want
					if got := p.line(); !strings.HasPrefix(got, begin) {
						t.Fatalf("got %.300s, want %s", got, begin)
					}
				}
				synctest.Wait()
				if len(ended) == 0 {
					t.Error("the stream's handler runs on")
				} else if err := <-ended; !strings.Contains(err.Error(), "not a request") && !strings.Contains(err.Error(), "longer than") {
					t.Errorf("the stream's handler was told %v", err)
				}
				p.say(`{"stream":2,"data":"hi"}`)
				p.expect(`{"stream":2,"event":"start","id":"0"}`, `{"stream":2,"data":"hi"}`, `{"stream":2,"event":"end","id":"1"}`)
				p.say(`{"stream":1,"event":"cancel"}`) // it still ran
				p.say(`{"stream":1,"data":"hi"}`)
				p.expect(`{"stream":1,"event":"start","id":"0"}`, `{"stream":1,"data":"hi"}`, `{"stream":1,"event":"end","id":"1"}`)
			})
		})
	}
}

// There is a limit to what is skipped, too.
func TestEndlessRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := servePipe(t, echo("server1"))
		conn, err := l.dial(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		p := newPeer(t, conn)
		took := make(chan int)
		go func() {
			_, _ = io.WriteString(p, `{"stream":7,"data":"`)
			took <- p.flood(strings.Repeat("x", 64<<10))
		}()
		p.expect(`{"stream":7,"event":"error","comment":["line is longer than 1048576 bytes"]}`,
			`{"event":"error","comment":["line is longer than 1048576 bytes"]}`)
		p.expectEOF()
		p.Close()
		if n := <-took; n < 32<<20 {
			t.Errorf("server took %d bytes of one line, want 32 MiB at least", n)
		}
	})
}

// MaxRequest is the longest request that a server accepts, above or below the
// default.
func TestMaxRequest(t *testing.T) {
	for _, most := range []int{100, 5 << 20} {
		s := &stream.Server{MaxRequest: most, Handler: func(_ context.Context, req *stream.Request, send func(stream.Annotated) error) error {
			return send(stream.Annotated{Data: fmt.Append(nil, len(req.Data))})
		}}
		p := dialPeer(t, serve(t, s))
		const around = `{"stream":1,"data":""}`
		go p.say(`{"stream":1,"data":"` + strings.Repeat("x", most-len(around)) + `"}`)
		p.expect(`{"stream":1,"event":"start","id":"0"}`, fmt.Sprintf(`{"stream":1,"data":%d}`, most-len(around)+2), `{"stream":1,"event":"end","id":"1"}`)
		go p.say(`{"stream":1,"data":"` + strings.Repeat("x", most-len(around)+1) + `"}`)
		p.expect(fmt.Sprintf(`{"stream":1,"event":"error","comment":["line is longer than %d bytes"]}`, most))
	}
}
