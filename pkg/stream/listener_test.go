package stream_test

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/fault"
)

// badListener fails a few times before it ends.
type badListener struct {
	*pipeListener
	errs []error
}

func (l *badListener) Accept() (net.Conn, error) {
	if len(l.errs) == 0 {
		return l.pipeListener.Accept()
	}
	err := l.errs[0]
	l.errs = l.errs[1:]
	return nil, err
}

func TestServeOutlivesAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := &net.OpError{Op: "accept", Net: "tcp", Err: errors.New("too many open files")}
		l := &badListener{newPipeListener(), []error{full, full, full}}
		serveOn(t, echo("server1"), l)
		c := newClient(t, &stream.Client{Dial: l.dial})
		begin := time.Now()
		if got, err := collect(t, c, "", text("hello")); got != "hello" || err != nil {
			t.Error(got, err)
		}
		if took := time.Since(begin); took != 35*time.Millisecond { // 5 + 10 + 20
			t.Errorf("served after %v, want 35ms", took)
		}
	})
}

func TestServeEnds(t *testing.T) {
	s := echo("server1")
	broken := errors.New("no longer a socket")
	if err := s.Serve(&badListener{newPipeListener(), []error{broken}}); !errors.Is(err, broken) {
		t.Errorf("Serve returned %v, want the listener's error", err)
	}
	l := newPipeListener()
	l.close()
	if err := s.Serve(l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a listener that was closed: %v", err)
	}
	s.Close()
	l = newPipeListener()
	if err := s.Serve(l); !errors.Is(err, stream.ErrClosed) {
		t.Errorf("Serve after Close returned %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error("Serve after Close left the listener open")
	}
	s.Close()
}

func TestServerLog(t *testing.T) {
	var mu sync.Mutex
	var log bytes.Buffer
	h := slog.NewTextHandler(lockedWriter{&mu, &log}, &slog.HandlerOptions{Level: slog.LevelDebug})
	s := faulty(fault.Fault{Mode: fault.First})
	s.Logger = slog.New(h)
	addr := serve(t, s)
	c := newClient(t, &stream.Client{Logger: slog.New(h)})
	for range 2 {
		_, err := collect(t, c, addr, stream.Request{ID: "b1946ac9", Data: stream.String("hello"), Attempt: 2})
		if err != nil && kindOf(err) != stream.Failed {
			t.Error(err)
		}
	}
	c.Close()
	s.Close()
	mu.Lock()
	defer mu.Unlock()
	for _, want := range []string{
		`msg=connected addr=` + addr, `msg="connection over" addr=` + addr,
		`msg="request taken" request=b1946ac9 from=0 attempt=2 remote=127.0.0.1:`,
		`msg="request over" request=b1946ac9 from=0 attempt=2 remote=127.0.0.1:`,
		`err="Stream ended before generation completed"`,
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %s:\n%s", want, log.String())
		}
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}
