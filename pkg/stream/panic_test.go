package stream_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/request-migration/migrate/pkg/stream"
)

// misfire does what the request's data says instead of returning.
func misfire(req stream.Request) {
	switch s, _ := req.Text(); s {
	case "panic":
		panic("a secret")
	case "nil":
		panic(error(nil))
	case "exit":
		runtime.Goexit()
	}
}

// TestPanics makes every function of the server's user panic or exit. That ends
// one stream, tells the client nothing private, and affects nothing else.
func TestPanics(t *testing.T) {
	const ended = `"event":"error","comment":["the handler panicked"]}`
	handler := func(_ context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		return send(stream.Annotated{Data: req.Data})
	}
	start := func(prefix string) []string { return []string{prefix + `"event":"start","id":"0"}`} }
	item := func(prefix string) []string {
		return append(start(prefix), prefix+`"data":"panic"}`, prefix+`"event":"end","id":"1"}`)
	}
	for name, tt := range map[string]struct {
		set  func(s *stream.Server)
		want func(prefix string) []string
	}{
		"Handler": {func(s *stream.Server) {
			s.Handler = func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
				misfire(*req)
				return handler(ctx, req, send)
			}
		}, func(prefix string) []string { return append(start(prefix), prefix+ended) }},
		"Admit": {func(s *stream.Server) {
			s.Admit = func(req stream.Request) error { misfire(req); return nil }
		}, func(prefix string) []string { return []string{prefix + ended} }},
		"Refused": {func(s *stream.Server) {
			s.Admit = func(req stream.Request) error {
				if string(req.Data) == `"neighbour"` || string(req.Data) == `"after"` {
					return nil
				}
				return errors.New("no")
			}
			s.Refused = func(req stream.Request, _ error) { misfire(req) }
		}, func(prefix string) []string { return []string{prefix + `"event":"error","comment":["no"]}`} }},
		"Logger": {func(s *stream.Server) {
			s.Logger = slog.New(badLogger{s.Logger.Handler()})
		}, item},
	} {
		for _, how := range []string{"panic", "nil", "exit"} {
			if name == "Logger" && how != "panic" {
				continue
			}
			t.Run(name+" "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var mu sync.Mutex
					var log bytes.Buffer
					s := &stream.Server{MaxStreams: 2, Handler: handler}
					s.Logger = slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, &slog.HandlerOptions{Level: slog.LevelError}))
					tt.set(s)
					release := make(chan struct{})
					inner := s.Handler
					s.Handler = func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
						if string(req.Data) == `"neighbour"` {
							<-release
						}
						return inner(ctx, req, send)
					}
					l := servePipe(t, s)
					conn, err := l.dial(t.Context(), "")
					if err != nil {
						t.Fatal(err)
					}
					p := newPeer(t, conn)
					p.say(`{"stream":1,"data":"neighbour"}`)
					p.expect(`{"stream":1,"event":"start","id":"0"}`)
					for range 3 { // each gives its place back
						for _, prefix := range []string{`{"stream":2,`, `{`} {
							p.say(prefix + `"data":"` + how + `"}`)
							for _, want := range tt.want(prefix) {
								p.expect(strings.ReplaceAll(want, `"panic"}`, `"`+how+`"}`))
							}
						}
					}
					p.say(`{"stream":3,"data":"after"}`)
					p.expect(`{"stream":3,"event":"start","id":"0"}`, `{"stream":3,"data":"after"}`, `{"stream":3,"event":"end","id":"1"}`)
					close(release)
					p.expect(`{"stream":1,"data":"neighbour"}`, `{"stream":1,"event":"end","id":"1"}`)
					synctest.Wait()
					if n := s.Streams(); n != 0 {
						t.Errorf("%d streams run", n)
					}
					mu.Lock()
					defer mu.Unlock()
					if name == "Logger" {
						return
					}
					for _, want := range []string{"level=ERROR", "function=" + name, "panic_test.go", map[string]string{
						"panic": `panic="a secret"`, "nil": "panic called with nil argument", "exit": "it called runtime.Goexit",
					}[how]} {
						if !strings.Contains(log.String(), want) {
							t.Errorf("the log does not say %s:\n%s", want, log.String())
						}
					}
				})
			})
		}
	}
}

// badLogger panics at every record.
type badLogger struct{ slog.Handler }

func (badLogger) Enabled(context.Context, slog.Level) bool { return true }

func (badLogger) Handle(context.Context, slog.Record) error { panic("no disk") }
