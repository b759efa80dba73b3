package stream_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// waits is a handler that waits for its context to end, and reports that.
func waits(ended chan<- error) stream.Handler {
	return func(ctx context.Context, _ *stream.Request, _ func(stream.Annotated) error) error {
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return ctx.Err()
	}
}

// A client that disconnects ends its requests, in whatever way it does so: TCP
// does not distinguish a client that has closed its socket from one that has
// closed half of it.
func TestClientGone(t *testing.T) {
	for name, leave := range map[string]func(*peer) error{
		"closed": func(p *peer) error { return p.Close() },
		"half":   func(p *peer) error { return p.Conn.(*net.TCPConn).CloseWrite() },
		"reset": func(p *peer) error {
			if err := p.Conn.(*net.TCPConn).SetLinger(0); err != nil {
				return err
			}
			return p.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan error)
			p := dialPeer(t, serve(t, &stream.Server{Handler: waits(ended)}))
			p.say(`{"stream":1,"data":"a"}`, `{"stream":2,"data":"b"}`, `{"data":"c"}`, `{"data":"never begun"}`)
			for range 3 {
				p.line()
			}
			if err := leave(p); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if err := await(t, ended, "the end of a handler"); !errors.Is(err, context.Canceled) || err.Error() != "client has closed the connection" {
					t.Errorf("a handler was told %v", err)
				}
			}
		})
	}
}

// If a client has sent more requests than are queued, its connection has not
// been read to the end when it disconnects. The next ping finds that out.
func TestClientGoneBehindItsQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		l := servePipe(t, &stream.Server{Handler: waits(ended)})
		conn, err := l.dial(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		p := newPeer(t, conn)
		go p.say(strings.Repeat(`{"data":"a"}`+"\n", 100))
		p.expect(`{"event":"start","id":"0"}`)
		synctest.Wait()
		begin := time.Now()
		p.Close()
		if err := await(t, ended, "the end of a handler"); err == nil || err.Error() != "client has closed the connection" {
			t.Errorf("the handler was told %v", err)
		}
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("found out after %v, want 5s", took)
		}
	})
}
