package stream_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/request-migration/migrate/pkg/stream"
)

// held returns a handler that sends one item and then waits to be released, and
// a channel that says when it has.
func held(release <-chan struct{}) (stream.Handler, <-chan struct{}) {
	running := make(chan struct{}, 1000) // more than any test asks for
	return func(ctx context.Context, req stream.Request, send func(stream.Annotated) error) error {
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
	addr := serve(t, &stream.Server{Handler: stream.Echo("server1", 0), MaxConns: 1})
	first := dialPeer(t, addr)
	first.say(`{"data":"hi"}`)
	first.expect(hi()...)
	second := dialPeer(t, addr)
	second.expect(`{"event":"overloaded","comment":["server has 1 connections, its limit"]}`)
	second.expectEOF()
	_, err := items(t.Context(), newClient(t, &stream.Client{}), addr, text("x"))
	if kindOf(err) != stream.Overloaded {
		t.Errorf("a client is told %v, want overloaded", err)
	}
	first.say(`{"data":"hi"}`)
	first.expect(hi()...)
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
		Handler: func(_ context.Context, req stream.Request, _ func(stream.Annotated) error) error {
			if handled++; !reflect.DeepEqual(req, asked[len(asked)-1]) {
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
		if got := asked[len(asked)-1]; !reflect.DeepEqual(got, tt.req) {
			t.Errorf("admit got %+v, want %+v", got, tt.req)
		}
	}
	if handled != 1 || s.Streams() != 0 {
		t.Errorf("%d requests handled, %d run; want 1 and 0", handled, s.Streams())
	}
}

func TestHandlerErrors(t *testing.T) {
	var mu sync.Mutex
	var fail error
	addr := serve(t, &stream.Server{Handler: func(context.Context, stream.Request, func(stream.Annotated) error) error {
		mu.Lock()
		defer mu.Unlock()
		return fail
	}})
	c := newClient(t, &stream.Client{})
	for _, tt := range []struct {
		err  error
		want string
	}{
		{stream.ErrBroken, "failed: Stream ended before generation completed"},
		{fmt.Errorf("worker 3: %w", stream.ErrBroken), "failed: Stream ended before generation completed"},
		{errors.New("no such\n\"model\""), "application: no such\n\"model\""},
		{errors.New(""), "application: no reason given"},
		{stream.ErrOverloaded, "application: server is overloaded"}, // too late to refuse
		{context.Canceled, "application: context canceled"},
		{errors.New(strings.Repeat("x", 5000)), "application: " + strings.Repeat("x", 4096)},
	} {
		mu.Lock()
		fail = tt.err
		mu.Unlock()
		_, err := items(t.Context(), c, addr, text("x"))
		if err == nil || err.Error() != tt.want {
			t.Errorf("handler's %v becomes %v, want %s", tt.err, err, tt.want)
		}
	}
}

// What a handler must not send it is told of, and what it sends besides arrives.
func TestBadItems(t *testing.T) {
	bad := map[string]stream.Annotated{
		"not JSON":     {Data: []byte("hello")},
		"is not JSON:": {},
		"not UTF-8":    {Data: []byte("\"\xff\"")},
		"more than":    {Data: stream.String(strings.Repeat("x", stream.MaxLine))},
		`"end"`:        {Data: stream.String("x"), Event: "end", ID: "1"},
		`"error"`:      {Data: stream.String("x"), Event: "error"},
	}
	addr := serve(t, &stream.Server{Handler: func(_ context.Context, _ stream.Request, send func(stream.Annotated) error) error {
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
