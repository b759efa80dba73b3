package stream_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// blocks is a handler that sends until it cannot, and reports why and when.
func blocks(ended chan<- error) stream.Handler {
	item := stream.Annotated{Data: stream.String(strings.Repeat("x", 1000))}
	return func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		if string(req.Data) != `"much"` {
			return send(stream.Annotated{Data: req.Data})
		}
		for {
			if err := send(item); err != nil {
				<-ctx.Done()
				ended <- context.Cause(ctx)
				return err
			}
		}
	}
}

// The stream of a client that grants no credit is handed back after a minute.
// Its connection and the other streams go on, and the place is free.
func TestSendBlockedOnCredit(t *testing.T) {
	for _, tt := range []struct{ set, want time.Duration }{{0, time.Minute}, {17 * time.Minute, 17 * time.Minute}} {
		synctest.Test(t, func(t *testing.T) {
			ended := make(chan error, 1)
			s := &stream.Server{Handler: blocks(ended), MaxStreams: 1, SendTimeout: tt.set}
			p := pipePeer(t, s)
			begin := time.Now()
			p.say(`{"stream":1,"data":"much"}`)
			got := 0
			var last string
			for last = p.line(); !strings.Contains(last, "draining"); last = p.line() {
				if got += len(last) + 1; got > 2*credit {
					t.Fatalf("%d bytes came on a credit of %d", got, credit)
				}
			}
			if last != `{"stream":1,"event":"draining","comment":["client is not reading"]}` || got < credit {
				t.Errorf("%d bytes came, and then %s", got, last)
			}
			if took := time.Since(begin); took != tt.want {
				t.Errorf("handed back after %v, want %v", took, tt.want)
			}
			if err := await(t, ended, "the end of a handler"); !errors.Is(err, stream.ErrDraining) || err.Error() != "client is not reading" {
				t.Errorf("the handler was told %v", err)
			}
			synctest.Wait()
			p.say(`{"stream":1,"data":"hi"}`)
			p.expect(`{"stream":1,"event":"start","id":"0"}`, `{"stream":1,"data":"hi"}`, `{"stream":1,"event":"end","id":"1"}`)
		})
	}
}

// A slow reader keeps its stream.
func TestSlowReaderKeepsItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		s := &stream.Server{Handler: blocks(ended)}
		p := pipePeer(t, s)
		p.say(`{"stream":1,"data":"much"}`)
		go func() {
			for err := error(nil); err == nil; {
				time.Sleep(50 * time.Second)
				_, err = io.WriteString(p, `{"stream":1,"event":"credit","id":"2000"}`+"\n")
			}
		}()
		got := 0
		for begin := time.Now(); time.Since(begin) < time.Hour; {
			line := p.line()
			if got += len(line); strings.Contains(line, "draining") || got > 3*credit {
				t.Fatalf("after %v and %d bytes the server says %.100s", time.Since(begin), got, line)
			}
		}
		p.Close()
		if err := await(t, ended, "the end of a handler"); !errors.Is(err, context.Canceled) {
			t.Errorf("the handler was told %v, which is not that the client has gone", err)
		}
		time.Sleep(time.Minute) // the one who grants credit notices, too
	})
}

// A connection that takes no bytes for a minute is closed, whatever waits
// there: items of a stream without a number, or answers to a client that only
// ever asks.
func TestStuckConnectionIsClosed(t *testing.T) {
	for name, say := range map[string]string{
		"an answer":  `{"data":"much"}` + "\n",
		"numbered":   `{"stream":1,"data":"much"}` + "\n",
		"pings":      strings.Repeat(`{"event":"ping"}`+"\n", 20_000),
		"bad lines":  strings.Repeat("}\n", 20_000),
		"last lines": `{"stream":1,"data":"hi"}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan error, 1)
				s := &stream.Server{Handler: blocks(ended)}
				p := pipePeer(t, s)
				begin := time.Now()
				go func() { _, _ = io.WriteString(p, say) }()
				time.Sleep(59 * time.Second)
				if n := s.Streams(); strings.Contains(say, "much") != (n == 1) {
					t.Errorf("after 59 s %d streams run", n)
				}
				time.Sleep(7 * time.Second) // what is looked after every 5 s
				synctest.Wait()
				if n := s.Streams(); n != 0 {
					t.Errorf("after %v %d streams run", time.Since(begin), n)
				}
				if n, err := p.Read(make([]byte, 1)); err == nil {
					t.Errorf("after %v the connection still gives %d bytes", time.Since(begin), n)
				}
			})
		})
	}
}
