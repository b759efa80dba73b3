package stream_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/request-migration/migrate/pkg/stream"
)

// FuzzAnswer lets a server send anything in answer to a request from item from,
// as stream 1. It compares the client with a reader that uses encoding/json and
// none of the client's shortcuts.
func FuzzAnswer(f *testing.F) {
	for _, lines := range [][]string{
		{`"event":"start","id":"0"`, `"data":"a"`, `"data":{"b":1}`, `"event":"end","id":"2"`},
		{`"event":"start","id":"2"`, `"data":"a"`, `"event":"end","id":"3"`},
		{`"event":"start","id":"0"`, `"data":"a"`, `"event":"end","id":"2"`},
		{`"event":"start","id":"0"`, `"data":"\u00e9"`, `"event":"error","comment":["Stream ended before generation completed"]`},
		{`"event":"start","id":"0"`, `"event":"error","comment":["no"]`},
		{`"event":"overloaded"`, `"event":"draining"`},
		{`"event":"start","id":"0"`, `"event":"ping"`, `"event":"draining","comment":["a","b"]`},
		{`"event":"start","id":"0"`, `"event":"new","data":1,"id":"i"`, `"comment":["x"]`, `"event":"start","id":"0"`},
		{`"event":"start","id":"0"`, `"event":"unresumable"`}, {`"event":"misdirected"`}, {`"event":"sleeping"`},
		{`"data":"a"`}, {`"stream":2,"data":"a"`}, {`"event":"end","id":"0"`},
	} {
		f.Add([]byte(`{"stream":1,`+strings.Join(lines, "}\n{\"stream\":1,")+"}\n"), 0, 5)
		f.Add([]byte(strings.Join(lines, "\n")), 2, 1000)
	}
	f.Add([]byte("{\"event\":\"ping\"}\n{\"event\":\"overloaded\"}\n"), 0, 1)
	f.Add([]byte("{\"stream\":1,\"event\":\"start\",\"id\":\"0\"}\n{\"data\":\"a\",\"stream\":1}\n{ \"stream\": 1, \"event\":\"end\", \"id\":\"1\"}\n"), 0, 1)
	f.Fuzz(func(t *testing.T, said []byte, from, piece int) {
		if from < 0 || piece < 1 {
			return
		}
		tape := play(said, piece, io.EOF)
		c := &stream.Client{Dial: tape.dial}
		defer c.Close()
		got, err := items(t.Context(), c, "", stream.Request{Data: stream.String("x"), From: from})
		want, kind := understand(said, from)
		if kindOf(err) != kind || !slices.Equal(got, want) {
			t.Errorf("got %q, %v, want %q and %q", got, err, want, kind)
		}
	})
}

// understand reads what a server sent on the first stream of a connection.
func understand(said []byte, from int) (items []string, kind stream.Kind) {
	started := false
	ours := map[string]bool{"": true, "start": true, "end": true, "error": true, "unresumable": true}
	count := func(id string) int {
		n, err := strconv.ParseUint(id, 10, 63)
		if err != nil {
			return -1
		}
		return int(n)
	}
	for {
		line, rest, whole := bytes.Cut(said, []byte("\n"))
		said = rest
		var a struct {
			Stream  *int64
			ID      string
			Data    json.RawMessage
			Event   string
			Comment []string
			// Fields of a request have no meaning here, but have a type.
			From, Attempt int
			To            string
			Timeout       int64 `json:"timeout_ms"`
			Headers       map[string]string
		}
		switch {
		case !whole && len(line) <= stream.MaxLine:
			return items, stream.Truncated
		case len(line) > stream.MaxLine, !utf8.Valid(line), json.Unmarshal(line, &a) != nil:
			return items, stream.Protocol
		case a.Stream == nil && bytes.HasPrefix(line, []byte(`{"stream":1,`)):
			return items, stream.Protocol // two numbers
		case a.Stream == nil && a.Event == "ping":
			continue
		case a.Stream == nil && (a.Event == "overloaded" || a.Event == "draining" || a.Event == "misdirected"):
			return items, stream.Kind(a.Event)
		case a.Stream == nil && !ours[a.Event] && len(a.Data) == 0:
			continue
		case a.Stream == nil, *a.Stream != 1, bytes.HasPrefix(line, []byte(`{"stream":`)) && !bytes.HasPrefix(line, []byte(`{"stream":1`)) && line[10] >= '0' && line[10] <= '9':
			return items, stream.Protocol
		}
		switch a.Event {
		case "ping":
			continue
		case "start":
			if started || count(a.ID) != from {
				return items, stream.Protocol
			}
			started = true
			continue
		case "end":
			if !started || count(a.ID) != from+len(items) {
				return items, stream.Protocol
			}
			return items, ""
		case "error":
			if len(a.Comment) > 0 && a.Comment[0] == "Stream ended before generation completed" {
				return items, stream.Failed
			}
			return items, stream.Application
		case "overloaded", "unresumable":
			if len(items) > 0 {
				return items, stream.Protocol
			}
			return items, stream.Kind(a.Event)
		case "misdirected":
			if started {
				return items, stream.Protocol
			}
			return items, stream.Misdirected
		case "draining":
			return items, stream.Draining
		}
		if !started && a.Event != "" {
			return items, stream.Overloaded
		}
		if len(a.Data) == 0 {
			continue
		}
		if !started {
			return items, stream.Protocol
		}
		items = append(items, string(a.Data))
	}
}

// spoken is a connection whose client sends some bytes and then leaves.
type spoken struct {
	net.Conn // what a server does not call
	said     io.Reader
	closed   chan struct{} // by the server
	close    func()
}

func (s *spoken) Read(p []byte) (int, error)       { return s.said.Read(p) }
func (s *spoken) Write(p []byte) (int, error)      { return len(p), nil }
func (s *spoken) Close() error                     { s.close(); return nil }
func (s *spoken) SetWriteDeadline(time.Time) error { return nil }
func (s *spoken) SetReadDeadline(time.Time) error  { return nil }
func (s *spoken) RemoteAddr() net.Addr             { return &net.TCPAddr{} }

// FuzzRequests lets a client send anything. The server survives, and leaves
// nothing running.
func FuzzRequests(f *testing.F) {
	f.Add([]byte("{\"data\":\"hi\"}\n{\"stream\":7,\"data\":\"hi\"}\n{\"stream\":7,\"event\":\"cancel\"}\n"))
	f.Add([]byte("{\"stream\":7,\"data\":\"hi\"}\n{\"stream\":7,\"data\":\"hi\"}\n"))
	f.Add([]byte("{\"stream\":7,\"event\":\"credit\",\"id\":\"65536\"}\n{\"event\":\"credit\",\"id\":\"-1\"}\n"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte("\n\n{}\nnull\n{\"data\":1,\"from\":-1}\n{\"data\":\"hi\",\"from\":7}\n{\"data\""))
	f.Fuzz(func(t *testing.T, said []byte) {
		s := &stream.Server{Resumes: true, Handler: func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
			if req.From < 0 || !json.Valid(req.Data) {
				t.Errorf("handler got %+v", req)
			}
			return stream.Echo("server1", 0)(ctx, req, send)
		}}
		l := newPipeListener()
		done := make(chan error, 1)
		go func() { done <- s.Serve(l) }()
		conn := &spoken{said: bytes.NewReader(said), closed: make(chan struct{})}
		conn.close = sync.OnceFunc(func() { close(conn.closed) })
		l.conns <- conn
		<-conn.closed
		s.Close()
		if err := <-done; !errors.Is(err, stream.ErrClosed) {
			t.Errorf("Serve returned %v", err)
		}
		if n := s.Streams(); n != 0 {
			t.Errorf("%d streams run", n)
		}
	})
}
