package stream_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// tape is a connection that plays what a server once sent, as soon as it is
// asked, and then ends.
type tape struct {
	net.Conn // what a client does not call
	// said returns what to play after len(asked) requests.
	said  func(asked []asked) []byte
	asks  int
	piece int   // bytes a read
	end   error // of the last read; nil to stay open
	early bool  // end comes with the last bytes

	mu     sync.Mutex
	sent   bytes.Buffer // by the client
	asked  []asked
	ready  chan struct{} // closed when it plays
	closed chan struct{}
	stop   func()
	rest   []byte
}

func play(said []byte, piece int, end error) *tape {
	return playTo(1, func([]asked) []byte { return said }, piece, end)
}

func playTo(asks int, said func([]asked) []byte, piece int, end error) *tape {
	t := &tape{said: said, asks: asks, piece: piece, end: end, ready: make(chan struct{}), closed: make(chan struct{})}
	t.stop = sync.OnceFunc(func() { close(t.closed) })
	return t
}

func (t *tape) dial(context.Context, string) (net.Conn, error) { return t, nil }

func (t *tape) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent.Write(p)
	for len(t.asked) < t.asks {
		line, err := t.sent.ReadBytes('\n')
		if err != nil {
			break // the client writes whole lines
		}
		var a asked
		if err := json.Unmarshal(line, &a); err != nil {
			return 0, err
		}
		if a.Event != "" {
			continue
		}
		if t.asked = append(t.asked, a); len(t.asked) == t.asks {
			t.rest = t.said(t.asked)
			close(t.ready)
		}
	}
	return len(p), nil
}

func (t *tape) Read(p []byte) (int, error) {
	select {
	case <-t.ready:
	case <-t.closed:
		return 0, net.ErrClosed
	}
	n := copy(p, t.rest[:min(len(t.rest), t.piece)])
	t.rest = t.rest[n:]
	switch {
	case len(t.rest) == 0 && t.end != nil && (n == 0 || t.early):
		return n, t.end
	case n == 0:
		<-t.closed
		return 0, net.ErrClosed
	}
	return n, nil
}

func (t *tape) Close() error {
	t.stop()
	return nil
}

func (t *tape) SetReadDeadline(time.Time) error { return nil }

// record returns all that a server sends in answer to a request as stream 1, up
// to the last line. After that many lines, the server is told to leave.
func record(t *testing.T, s *stream.Server, request string, leaveAfter int) []byte {
	t.Helper()
	p := dialPeer(t, serve(t, s))
	p.say(request)
	var all []byte
	for n := 0; ; n++ {
		if n == leaveAfter && n > 0 {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			go s.Shutdown(ctx) // ends when this end closes
		}
		line, err := p.r.ReadBytes('\n')
		if err != nil {
			t.Fatalf("recording %q: %v", all, err)
		}
		all = append(all, line...)
		if over, _ := lastWord(t, line); over {
			return all
		}
	}
}

// lastWord uses encoding/json alone to tell whether a line ends a stream, and
// how: with a kind of break, or "" for the end.
func lastWord(tb testing.TB, line []byte) (bool, stream.Kind) {
	tb.Helper()
	var a stream.Annotated
	if err := json.Unmarshal(line, &a); err != nil {
		tb.Fatalf("line %q: %v", line, err)
	}
	switch a.Event {
	case "end":
		return true, ""
	case "error":
		if a.Comment[0] == "Stream ended before generation completed" {
			return true, stream.Failed
		}
		return true, stream.Application
	case "overloaded", "draining":
		return true, stream.Kind(a.Event)
	}
	return false, ""
}

// meaning uses encoding/json alone to tell what the whole lines of said mean:
// the data of the items, and how the stream ends, which is lost if no line
// says.
func meaning(tb testing.TB, said []byte, lost stream.Kind) (items []string, kind stream.Kind) {
	tb.Helper()
	for {
		line, rest, whole := bytes.Cut(said, []byte("\n"))
		if !whole {
			return items, lost
		}
		if over, kind := lastWord(tb, line); over {
			return items, kind
		}
		var a stream.Annotated
		if err := json.Unmarshal(line, &a); err == nil && len(a.Data) > 0 {
			items = append(items, string(a.Data))
		}
		said = rest
	}
}

// kindOf returns the kind of a break, "" for none.
func kindOf(err error) stream.Kind {
	if err == nil {
		return ""
	}
	if b, ok := errors.AsType[*stream.Break](err); ok {
		return b.Kind
	}
	return stream.Kind("no break: " + err.Error())
}

// asBreak returns the break that err is.
func asBreak(tb testing.TB, err error) *stream.Break {
	tb.Helper()
	b, ok := errors.AsType[*stream.Break](err)
	if !ok {
		tb.Fatalf("%v is no break", err)
	}
	return b
}
