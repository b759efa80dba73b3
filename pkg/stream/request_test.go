package stream_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, err = items(t.Context(), newClient(t, &stream.Client{}), l.Addr().String(), text("x"))
	if kindOf(err) != stream.Unreachable || !strings.Contains(err.Error(), "no connection to "+l.Addr().String()+": ") {
		t.Errorf("nobody listens: %v, want unreachable", err)
	}
	if _, ok := errors.AsType[*net.OpError](err); !ok {
		t.Errorf("%v hides its cause", err)
	}
}

func TestDialTimeout(t *testing.T) {
	for bound, want := range map[time.Duration]time.Duration{0: 2 * time.Second, time.Minute: time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			nobody := newPipeListener()
			c := newClient(t, &stream.Client{DialTimeout: bound, Dial: nobody.dial})
			begin := time.Now()
			_, err := items(t.Context(), c, "far:1", text("x"))
			if kindOf(err) != stream.Unreachable || !strings.Contains(err.Error(), fmt.Sprintf("no connection to far:1 within %v", want)) {
				t.Errorf("%v, want unreachable", err)
			}
			if took := time.Since(begin); took != want {
				t.Errorf("gave up after %v, want %v", took, want)
			}
		})
	}
}

// A caller's context ends its request at every stage, with the context's error.
func TestContext(t *testing.T) {
	cause := errors.New("the caller's own reason")
	for name, script := range map[string]func(*peer){
		"dialing":  nil,
		"starting": answer(),
		"running":  answer(start, itemA),
		"flooded":  forever(itemA, 10*time.Millisecond, start),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial := newPipeListener().dial // nobody accepts
				if script != nil {
					dial = scripted(t, script)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				begin := time.Now()
				_, err := items(ctx, newClient(t, &stream.Client{Dial: dial}), "", text("x"))
				if !errors.Is(err, context.DeadlineExceeded) || strings.HasPrefix(string(kindOf(err)), "un") || time.Since(begin) != time.Second {
					t.Errorf("deadline: %v after %v", err, time.Since(begin))
				}
			})
			synctest.Test(t, func(t *testing.T) {
				dial := newPipeListener().dial // nobody accepts
				if script != nil {
					dial = scripted(t, script)
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(time.Second, func() { cancel(cause) })
				_, err := items(ctx, newClient(t, &stream.Client{Dial: dial}), "", text("x"))
				if !errors.Is(err, context.Canceled) || !errors.Is(err, cause) {
					t.Errorf("cancelled: %v, want the context's error and its cause", err)
				}
			})
		})
	}
	t.Run("before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		c := newClient(t, &stream.Client{Dial: func(context.Context, string) (net.Conn, error) {
			t.Error("dialled for a request that was cancelled before")
			return nil, errors.New("refused")
		}})
		if _, err := items(ctx, c, "", text("x")); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want cancelled", err)
		}
	})
}

// A request that cannot be sent is the caller's mistake.
func TestBadRequest(t *testing.T) {
	addr := serve(t, echo("server1"))
	c := newClient(t, &stream.Client{})
	for want, req := range map[string]stream.Request{
		"not JSON":        {},
		"not UTF-8":       {Data: []byte("\"\xff\"")},
		"starts at item":  {Data: stream.String("x"), From: -1},
		"more than 10485": {Data: stream.String(strings.Repeat("x", stream.MaxLine))},
	} {
		_, err := items(t.Context(), c, addr, req)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(string(kindOf(err)), "no break") {
			t.Errorf("%v, want %q and no break", err, want)
		}
	}
	if got, err := collect(t, c, addr, text("fine")); got != "fine" || err != nil {
		t.Errorf("the request after: %q, %v", got, err)
	}
}
