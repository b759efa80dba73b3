package stream_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// A connection without streams is closed after IdleTimeout, and not before.
func TestIdleTimeout(t *testing.T) {
	for bound, want := range map[time.Duration]time.Duration{
		0: time.Minute, time.Second: time.Second, 20 * time.Second: 20 * time.Second,
	} {
		t.Run(want.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				closed := make(chan time.Time, 1)
				c := newClient(t, &stream.Client{IdleTimeout: bound, Dial: scripted(t, func(p *peer) {
					p.answer(start, itemA, itemB, end2)
					p.answer(start, itemA, itemB, end2)
					p.answer(start, itemA)
					time.Sleep(1500 * time.Millisecond) // a stream may well run for longer
					p.say(`{"stream":3,"data":"b"}`, `{"stream":3,"event":"end","id":"2"}`)
					p.hold()
					closed <- time.Now()
				})})
				for range 2 {
					if _, err := items(t.Context(), c, "", text("x")); err != nil {
						t.Fatal(err)
					}
					time.Sleep(want - 1)
				}
				if _, err := items(t.Context(), c, "", text("x")); err != nil {
					t.Fatalf("after %v: %v", want-1, err)
				}
				begin := time.Now()
				select {
				case at := <-closed:
					if took := at.Sub(begin); took != want {
						t.Errorf("closed after %v, want %v", took, want)
					}
				case <-time.After(time.Hour):
					t.Error("waited an hour for the idle connection to be closed")
				}
			})
		})
	}
}

// The time for which a connection was idle does not count as silence of the
// server.
func TestStallOnKeptConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, &stream.Client{StartTimeout: time.Minute, Dial: scripted(t, func(p *peer) {
			p.answer(start, itemA, itemB, end2)
			p.answer(`{"event":"ping"}`)
			p.hold()
		})})
		if _, err := items(t.Context(), c, "", text("x")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Second)
		begin := time.Now()
		_, err := items(t.Context(), c, "", text("x"))
		if took := time.Since(begin); kindOf(err) != stream.Stalled || took != 15*time.Second {
			t.Errorf("%v after %v, want stalled after 15s", err, took)
		}
	})
}

// lastGasp answers one request and closes after it has read another.
func lastGasp(p *peer) {
	p.answer(start, itemA, itemB, end2)
	p.request()
}

// A kept connection that turns out dead is replaced by a fresh one, once.
func TestDeadConnectionIsReplaced(t *testing.T) {
	halfAStart := func(p *peer) {
		p.answer(start, itemA, itemB, end2)
		p.request()
		_, _ = io.WriteString(p, `{"stream":2,"event":"st`) // and no more
	}
	for name, tt := range map[string]struct {
		scripts []func(*peer)
		want    stream.Kind
		items   int
	}{
		"replaced":            {[]func(*peer){lastGasp, answer(start, itemA, itemB, end2)}, "", 2},
		"half a line":         {[]func(*peer){halfAStart, answer(start, itemA, itemB, end2)}, "", 2},
		"dead again":          {[]func(*peer){lastGasp, func(p *peer) { p.request() }, answer(start, itemA, itemB, end2)}, stream.Truncated, 0},
		"nobody there":        {[]func(*peer){lastGasp}, stream.Unreachable, 0},
		"silent":              {[]func(*peer){lastGasp, answer()}, stream.Unresponsive, 0},
		"after a line":        {[]func(*peer){func(p *peer) { p.answer(start, itemA, itemB, end2); p.answer(start) }, answer(start, itemA, itemB, end2)}, stream.Truncated, 0},
		"garbage is no death": {[]func(*peer){func(p *peer) { p.answer(start, itemA, itemB, end2); p.answer("garbage") }, answer(start, itemA, itemB, end2)}, stream.Protocol, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newClient(t, &stream.Client{Dial: scripted(t, tt.scripts...)})
				if got, err := items(t.Context(), c, "", text("x")); len(got) != 2 || err != nil {
					t.Fatalf("first: %q, %v", got, err)
				}
				got, err := items(t.Context(), c, "", text("x"))
				if len(got) != tt.items || kindOf(err) != tt.want {
					t.Errorf("second: %q, %v, want %d items and %q", got, err, tt.items, tt.want)
				}
			})
		})
	}
}

// A restarted server is found at its address.
func TestServerRestarts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	c := newClient(t, &stream.Client{})
	for range 5 {
		s := echo("server1")
		done := make(chan error)
		go func() { done <- s.Serve(l) }()
		for range 2 {
			if got, err := collect(t, c, addr, text("hello")); got != "hello" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		}
		s.Close()
		if err := <-done; !errors.Is(err, stream.ErrClosed) {
			t.Errorf("Serve returned %v", err)
		}
		if l, err = net.Listen("tcp", addr); err != nil {
			t.Fatalf("the address is gone: %v", err)
		}
	}
	l.Close()
}

// Requests that need a connection at the same time share one dial, which
// outlives the request that began it.
func TestDialIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := servePipe(t, echo("server1"))
		var dials atomic.Int32
		c := newClient(t, &stream.Client{Dial: counted(func(ctx context.Context, addr string) (net.Conn, error) {
			time.Sleep(time.Second)
			return l.dial(ctx, addr)
		}, &dials)})
		var requests sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		requests.Go(func() {
			if _, err := items(ctx, c, "", text("x")); !errors.Is(err, context.Canceled) {
				t.Errorf("the cancelled one: %v", err)
			}
		})
		synctest.Wait()
		for range 10 {
			requests.Go(func() {
				if got, err := collect(t, c, "", text("hello")); got != "hello" || err != nil {
					t.Errorf("%q, %v", got, err)
				}
			})
		}
		synctest.Wait()
		cancel()
		requests.Wait()
		if n := dials.Load(); n != 1 {
			t.Errorf("%d dials, want 1", n)
		}
	})
}

// A server that closes each connection at once is asked once.
func TestClosedBeforeUse(t *testing.T) {
	for said, want := range map[string]stream.Kind{
		"": stream.Truncated,
		"{\"event\":\"overloaded\",\"comment\":[\"full\"]}\n": stream.Overloaded,
	} {
		for range 100 { // it may be noticed before the request is sent, or after
			synctest.Test(t, func(t *testing.T) {
				var dials atomic.Int32
				c := newClient(t, &stream.Client{Dial: counted(func(context.Context, string) (net.Conn, error) {
					return &spoken{said: strings.NewReader(said), close: func() {}}, nil
				}, &dials)})
				_, err := items(t.Context(), c, "", text("x"))
				if kindOf(err) != want || dials.Load() != 1 {
					t.Errorf("%v after %d dials, want %q after one", err, dials.Load(), want)
				}
			})
		}
	}
}

// A connection on which a server did not answer is not used again, but its
// running streams may go on.
func TestBadConnectionIsRetired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := make(chan bool, 1)
		c := newClient(t, &stream.Client{Dial: scripted(t,
			func(p *peer) {
				p.answer(start, itemA)           // stream 1 runs
				p.answer(`{"event":"ping"}`)     // stream 2 gets no start
				time.Sleep(3 * time.Second)      // until it has noticed
				p.say(`{"stream":1,"data":"b"}`) // stream 1 goes on
				time.Sleep(time.Second)          // until the other one is asked
				p.say(`{"stream":1,"event":"end","id":"2"}`)
				if _, ok := p.request(); ok {
					t.Error("a request came on a connection that is retired")
				}
				closed <- true
			},
			answer(start, itemA, itemB, end2),
		)})
		var first sync.WaitGroup
		first.Go(func() {
			if got, err := items(t.Context(), c, "", text("1")); len(got) != 2 || err != nil {
				t.Errorf("first: %q, %v", got, err)
			}
		})
		synctest.Wait()
		if _, err := items(t.Context(), c, "", text("2")); kindOf(err) != stream.Unresponsive {
			t.Errorf("second: %v, want unresponsive", err)
		}
		time.Sleep(1500 * time.Millisecond)
		if got, err := items(t.Context(), c, "", text("3")); len(got) != 2 || err != nil {
			t.Errorf("third: %q, %v", got, err)
		}
		first.Wait()
		synctest.Wait()
		select {
		case <-closed:
		default:
			t.Error("the connection outlives its last stream")
		}
	})
}
