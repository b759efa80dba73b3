package stream_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// Cancelling frees the stream's number at once, and its place when the handler
// has returned, which may take a while.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stream.Server{MaxStreams: 1, Handler: func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
			if string(req.Data) == `"next"` {
				return nil
			}
			<-ctx.Done()
			if err := context.Cause(ctx); err.Error() != "client has cancelled the request" {
				t.Errorf("handler was told %v", err)
			}
			if err := send(stream.Annotated{Data: stream.String("too late")}); err == nil {
				t.Error("an item could be sent after the cancel")
			}
			time.Sleep(time.Minute)
			return nil
		}}
		l := servePipe(t, s)
		conn, err := l.dial(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		p := newPeer(t, conn)
		for range 3 {
			p.say(`{"stream":7,"data":"slow"}`)
			p.expect(`{"stream":7,"event":"start","id":"0"}`)
			p.say(`{"stream":8,"data":"next"}`)
			p.expect(`{"stream":8,"event":"overloaded","comment":["server is overloaded: 1 streams run, its limit"]}`)
			p.say(`{"stream":7,"event":"cancel"}`, `{"stream":7,"data":"next"}`)
			p.expect(`{"stream":7,"event":"overloaded","comment":["server is overloaded: 1 streams run, its limit"]}`)
			if n := s.Streams(); n != 1 {
				t.Errorf("%d streams run, want the one whose handler has not returned", n)
			}
			time.Sleep(2 * time.Minute)
			p.say(`{"stream":7,"data":"next"}`)
			p.expect(`{"stream":7,"event":"start","id":"0"}`, `{"stream":7,"event":"end","id":"0"}`)
		}
		if n := s.Streams(); n != 0 {
			t.Errorf("%d streams run in the end", n)
		}
	})
}

// A numbered stream is sent only the lines that its credit covers; one without
// a number is sent whatever the connection takes.
func TestCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := servePipe(t, &stream.Server{Handler: many(20_000), SendTimeout: 24 * time.Hour})
		conn, err := l.dial(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		p := newPeer(t, conn)
		lines := make(chan int) // bytes of each
		go func() {
			defer close(lines)
			for {
				line, err := p.r.ReadString('\n')
				if err != nil {
					return
				}
				if line != "{\"event\":\"ping\"}\n" {
					lines <- len(line)
				}
			}
		}()
		// until returns how much comes before there is nothing for a minute.
		until := func() (sum, last int) {
			for {
				select {
				case last = <-lines:
					sum += last
				case <-time.After(time.Minute):
					return sum, last
				}
			}
		}
		p.say(`{"stream":7,"data":"x"}`)
		sum, line := until()
		if sum < credit || sum >= credit+line {
			t.Errorf("%d bytes came on a credit of %d", sum, credit)
		}
		for _, n := range []int{1, line, 1000, 0, 50_000} {
			before := sum
			p.say(fmt.Sprintf(`{"stream":7,"event":"credit","id":"%d"}`, n))
			more, _ := until()
			sum += more
			if before += n; sum < before-line || sum >= before+line {
				t.Errorf("%d bytes came for %d more", more, n)
			}
		}
		p.say(`{"data":"x"}`)
		if sum, line := until(); sum < 20_000*(line-10) {
			t.Errorf("%d bytes came without a number", sum)
		}
		p.say(`{"stream":7,"event":"credit","id":"9223372036854775807"}`, `{"stream":7,"event":"credit","id":"9223372036854775807"}`)
		if more, line := until(); sum+more < 20_000*(line-10) {
			t.Errorf("%d bytes came in all", sum+more)
		}
	})
}

func TestBadCredit(t *testing.T) {
	p := dialPeer(t, serve(t, echo("server1")))
	p.say(`{"stream":7,"event":"credit","id":"much"}`)
	p.expect(`{"event":"error","comment":["credit line with id \"much\", want a count"]}`)
	p.expectEOF()
}
