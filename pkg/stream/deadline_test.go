package stream_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// A request's Timeout ends the handler's context, whatever the handler does,
// and the client is told why.
func TestRequestTimeout(t *testing.T) {
	const over = `"event":"error","comment":["the request's time is over"]}`
	for name, handler := range map[string]stream.Handler{
		"waits": func(ctx context.Context, _ *stream.Request, _ func(stream.Annotated) error) error {
			<-ctx.Done()
			return ctx.Err()
		},
		"says more": func(ctx context.Context, _ *stream.Request, _ func(stream.Annotated) error) error {
			<-ctx.Done()
			return fmt.Errorf("asking the model: %w", context.Cause(ctx))
		},
		"sends": func(_ context.Context, _ *stream.Request, send func(stream.Annotated) error) error {
			for {
				if err := send(stream.Annotated{Data: stream.String("x")}); err != nil {
					return err
				}
				time.Sleep(10 * time.Second)
			}
		},
		"is blocked": func(_ context.Context, _ *stream.Request, send func(stream.Annotated) error) error {
			for {
				if err := send(stream.Annotated{Data: stream.String(wire1Long)}); err != nil {
					return err
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := pipePeer(t, &stream.Server{MaxStreams: 1, Handler: func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
					if string(req.Data) == `"hi"` {
						return nil
					}
					if req.Timeout != 1500*time.Millisecond {
						t.Errorf("the handler sees %v, want 1.5s", req.Timeout)
					}
					err := handler(ctx, req, send)
					if cause := context.Cause(ctx); name != "sends" && !errors.Is(cause, context.DeadlineExceeded) {
						t.Errorf("the handler's context ended with %v", cause)
					}
					return err
				}})
				begin := time.Now()
				p.say(`{"stream":1,"data":"x","timeout_ms":1500}`)
				line := p.line()
				for got := 0; line != `{"stream":1,`+over; got += len(line) {
					if time.Since(begin) > time.Minute || got > 2*credit {
						t.Fatalf("after %v the server says %.100s", time.Since(begin), line)
					}
					line = p.line()
				}
				if took := time.Since(begin); name != "sends" && took != 1500*time.Millisecond {
					t.Errorf("ended after %v, want 1.5s", took)
				}
				p.say(`{"stream":2,"data":"hi","timeout_ms":1}`)
				p.expect(`{"stream":2,"event":"start","id":"0"}`, `{"stream":2,"event":"end","id":"0"}`)
			})
		})
	}
}

// The time of a request without a number also runs while it waits for the
// previous one.
func TestRequestTimeoutInQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pipePeer(t, &stream.Server{Handler: func(ctx context.Context, req *stream.Request, _ func(stream.Annotated) error) error {
			if req.Timeout > 0 {
				<-ctx.Done()
				return ctx.Err()
			}
			time.Sleep(4 * time.Second)
			return nil
		}})
		begin := time.Now()
		p.say(`{"data":"x"}`, `{"data":"y","timeout_ms":3000}`)
		p.expect(`{"event":"start","id":"0"}`, `{"event":"end","id":"0"}`, `{"event":"start","id":"0"}`,
			`{"event":"error","comment":["the request's time is over"]}`)
		if took := time.Since(begin); took != 4*time.Second {
			t.Errorf("took %v, want 4s", took)
		}
	})
}

// A request that ends before its time ends as it would without one.
func TestRequestTimeoutNotReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		p := pipePeer(t, &stream.Server{Handler: waits(ended)})
		p.say(`{"stream":1,"data":"x","timeout_ms":3600000}`, `{"stream":1,"event":"cancel"}`)
		if err := await(t, ended, "the end of a handler"); !errors.Is(err, context.Canceled) || err.Error() != "client has cancelled the request" {
			t.Errorf("the handler was told %v", err)
		}
	})
}

// A handler gets the headers unchanged, and the client's address.
func TestHandlerSeesTheRequest(t *testing.T) {
	var got stream.Request
	addr := serve(t, &stream.Server{Resumes: true, Handler: func(_ context.Context, req *stream.Request, _ func(stream.Annotated) error) error {
		got = *req
		return nil
	}})
	p := dialPeer(t, addr)
	p.say(`{"stream":1,"id":"any form","to":"` + chat + `","data":{"a":1},"from":2,"attempt":3,"timeout_ms":60000,` +
		`"headers":{"traceparent":"00-1-2-01","x":"é"}}`)
	p.expect(`{"stream":1,"event":"start","id":"2"}`, `{"stream":1,"event":"end","id":"2"}`)
	want := stream.Request{
		ID: "any form", To: chat, Data: []byte(`{"a":1}`), From: 2, Attempt: 3, Timeout: time.Minute,
		Headers: map[string]string{"traceparent": "00-1-2-01", "x": "é"}, Peer: &stream.Peer{Addr: p.LocalAddr()},
	}
	if fmt.Sprint(got.Peer.Addr) != fmt.Sprint(want.Peer.Addr) {
		t.Errorf("the client is at %v, want %v", got.Peer.Addr, want.Peer.Addr)
	}
	got.Peer, want.Peer = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the handler got %+v, want %+v", got, want)
	}
}
