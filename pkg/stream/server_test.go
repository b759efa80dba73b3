package stream_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// held returns a handler that sends one item and then waits to be released, and
// a channel that tells when it has sent it.
func held(release <-chan struct{}) (stream.Handler, <-chan struct{}) {
	running := make(chan struct{}, 1000) // more than any test asks for
	return func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		if err := send(stream.Annotated{Data: req.Data}); err != nil {
			return err
		}
		running <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}, running
}

func TestMaxStreams(t *testing.T) {
	release := make(chan struct{})
	handler, running := held(release)
	s := &stream.Server{Handler: handler, MaxStreams: 2}
	addr := serve(t, s)
	c := newClient(t, &stream.Client{})
	var requests sync.WaitGroup
	for range 2 {
		requests.Go(func() {
			if got, err := items(t.Context(), c, addr, text("x")); len(got) != 1 || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		})
		<-running
	}
	if n := s.Streams(); n != 2 {
		t.Errorf("%d streams run, want 2", n)
	}
	_, err := items(t.Context(), c, addr, text("x"))
	if kindOf(err) != stream.Overloaded || !strings.Contains(err.Error(), "2 streams run, its limit") {
		t.Errorf("the third: %v, want overloaded", err)
	}
	close(release)
	requests.Wait()
	if got, err := items(t.Context(), c, addr, text("x")); len(got) != 1 || err != nil {
		t.Errorf("after the others: %q, %v", got, err)
	}
}

func TestMaxConns(t *testing.T) {
	release := make(chan struct{})
	handler, _ := held(release)
	addr := serve(t, &stream.Server{Handler: handler, MaxConns: 1})
	first := dialPeer(t, addr)
	first.say(`{"data":"hi"}`)
	first.expect(`{"event":"start","id":"0"}`, `{"data":"hi"}`)
	second := dialPeer(t, addr)
	second.expect(`{"event":"overloaded","comment":["server has 1 connections, its limit"]}`)
	second.expectEOF()
	_, err := items(t.Context(), newClient(t, &stream.Client{}), addr, text("x"))
	if kindOf(err) != stream.Overloaded {
		t.Errorf("a client is told %v, want overloaded", err)
	}
	close(release)
	first.expect(`{"event":"end","id":"1"}`)
}

func TestAdmit(t *testing.T) {
	var asked []stream.Request
	handled := 0
	s := &stream.Server{
		Resumes: true,
		Admit: func(req stream.Request) error {
			asked = append(asked, req)
			switch {
			case req.Attempt > 1:
				return fmt.Errorf("%w: no retries now", stream.ErrOverloaded)
			case req.From > 0:
				return errors.New("not half an answer")
			}
			return nil
		},
		Handler: func(_ context.Context, req *stream.Request, _ func(stream.Annotated) error) error {
			if handled++; !reflect.DeepEqual(*req, asked[len(asked)-1]) {
				t.Errorf("handler got %+v, admit %+v", req, asked[len(asked)-1])
			}
			return nil
		},
	}
	addr := serve(t, s)
	c := newClient(t, &stream.Client{})
	for _, tt := range []struct {
		req  stream.Request
		want string
	}{
		{stream.Request{ID: "a", Data: []byte(`"x"`)}, ""},
		{stream.Request{ID: "b", Data: []byte(`"x"`), Attempt: 2}, "overloaded: server is overloaded: no retries now"},
		{stream.Request{ID: "c", Data: []byte(`"x"`), From: 1}, "application: not half an answer"},
	} {
		_, err := items(t.Context(), c, addr, tt.req)
		if got := fmt.Sprint(err); got != tt.want && (err != nil || tt.want != "") {
			t.Errorf("%+v: %v, want %q", tt.req, err, tt.want)
		}
		tt.req.Attempt = max(tt.req.Attempt, 1)
		got := asked[len(asked)-1]
		if host, _, err := net.SplitHostPort(fmt.Sprint(got.Peer.Addr)); host != "127.0.0.1" || err != nil {
			t.Errorf("the client is at %v, want 127.0.0.1", got.Peer.Addr)
		}
		if got.Peer = nil; !reflect.DeepEqual(got, tt.req) {
			t.Errorf("admit got %+v, want %+v", got, tt.req)
		}
	}
	if handled != 1 || s.Streams() != 0 {
		t.Errorf("%d requests handled, %d run; want 1 and 0", handled, s.Streams())
	}
}

// A handler's error becomes the stream's last line, before the first item or
// after it.
func TestHandlerErrors(t *testing.T) {
	const broken = `"event":"error","comment":["Stream ended before generation completed"`
	for _, tt := range []struct {
		err         error
		early, late string // late is "" if it is the same
	}{
		{err: stream.ErrFailed, early: broken + `]`},
		{err: fmt.Errorf("worker 3: %w", stream.ErrFailed), early: broken + `,"worker 3: Stream ended before generation completed"]`},
		{err: stream.ErrFailedUnreported, early: broken + `],"data":{"report":false}`},
		{
			err:   fmt.Errorf("no such worker: %w", stream.ErrFailedUnreported),
			early: broken + `,"no such worker: Stream ended before generation completed; the server is sound"],"data":{"report":false}`,
		},
		{
			err: stream.ErrOverloaded, early: `"event":"overloaded","comment":["server is overloaded"]`,
			late: broken + `,"server is overloaded"],"data":{"report":false}`,
		},
		{
			err:   fmt.Errorf("worker 3: %w", stream.OverloadedFor(1500*time.Millisecond)),
			early: `"event":"overloaded","comment":["worker 3: server is overloaded"],"data":{"retry_after_ms":1500}`,
			late:  broken + `,"worker 3: server is overloaded"],"data":{"report":false}`,
		},
		{err: stream.OverloadedFor(time.Nanosecond), early: `"event":"overloaded","comment":["server is overloaded"],"data":{"retry_after_ms":1}`, late: broken + `,"server is overloaded"],"data":{"report":false}`},
		{err: stream.OverloadedFor(0), early: `"event":"overloaded","comment":["server is overloaded"]`, late: broken + `,"server is overloaded"],"data":{"report":false}`},
		{
			err: stream.ErrUnresumable, early: `"event":"unresumable","comment":["cannot begin there"]`,
			late: broken + `,"cannot begin there"],"data":{"report":false}`,
		},
		{err: fmt.Errorf("%w: worker 3", stream.ErrDraining), early: `"event":"draining","comment":["server is leaving: worker 3"]`},
		{err: errors.New("no such\n\"model\""), early: `"event":"error","comment":["no such\n\"model\""]`},
		{err: errors.New(""), early: `"event":"error"`},
		{err: &stream.Error{Message: "no such model", Data: []byte(`{"code": 404}`)}, early: `"event":"error","comment":["no such model"],"data":{"code":404}`},
		{err: fmt.Errorf("worker 3: %w", &stream.Error{Message: "no", Data: []byte(`7`)}), early: `"event":"error","comment":["worker 3: no"],"data":7`},
		{err: &stream.Error{Message: "bad data", Data: []byte(`{`)}, early: `"event":"error","comment":["bad data"]`},
		{err: &stream.Error{Message: "much data", Data: stream.String(strings.Repeat("x", stream.MaxLine))}, early: `"event":"error","comment":["much data"]`},
		{err: context.Canceled, early: `"event":"error","comment":["context canceled"]`},
		{err: errors.New(strings.Repeat("x", 5000)), early: `"event":"error","comment":["` + strings.Repeat("x", 4096) + `"]`},
	} {
		p := dialPeer(t, serve(t, &stream.Server{Handler: func(_ context.Context, req *stream.Request, send func(stream.Annotated) error) error {
			if string(req.Data) == `"late"` {
				if err := send(stream.Annotated{Data: req.Data}); err != nil {
					return err
				}
			}
			return tt.err
		}}))
		p.say(`{"stream":1,"data":"early"}`)
		p.expect(`{"stream":1,"event":"start","id":"0"}`, `{"stream":1,`+tt.early+`}`)
		p.say(`{"stream":2,"data":"late"}`)
		p.expect(`{"stream":2,"event":"start","id":"0"}`, `{"stream":2,"data":"late"}`, `{"stream":2,`+cmp.Or(tt.late, tt.early)+`}`)
	}
}

// An invalid item is an error of send, and the rest of the answer arrives.
func TestBadItems(t *testing.T) {
	bad := map[string]stream.Annotated{
		"not JSON":     {Data: []byte("hello")},
		"is not JSON:": {},
		"not UTF-8":    {Data: []byte("\"\xff\"")},
		"more than":    {Data: stream.String(strings.Repeat("x", stream.MaxLine))},
		`"end"`:        {Data: stream.String("x"), Event: "end", ID: "1"},
		`"error"`:      {Data: stream.String("x"), Event: "error"},
	}
	addr := serve(t, &stream.Server{Handler: func(_ context.Context, _ *stream.Request, send func(stream.Annotated) error) error {
		for want, item := range bad {
			if err := send(item); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("sending %.40q: %v, want %q", item.Data, err, want)
			}
		}
		data := []byte(`"first"`)
		if err := send(stream.Annotated{Data: data, ID: "i", Event: "e", Comment: []string{"c"}}); err != nil {
			return err
		}
		copy(data, `"reuse"`)
		return send(stream.Annotated{Data: data})
	}})
	var got []stream.Annotated
	for a, err := range newClient(t, &stream.Client{}).Stream(t.Context(), addr, text("x")) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, a)
	}
	want := []stream.Annotated{{Data: []byte(`"first"`), ID: "i", Event: "e", Comment: []string{"c"}}, {Data: []byte(`"reuse"`)}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
