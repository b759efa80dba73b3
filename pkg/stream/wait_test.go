package stream_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// slowly sends s over a link of 100 kB/s.
func (p *peer) slowly(s string) {
	for len(s) > 0 {
		time.Sleep(100 * time.Millisecond)
		n := min(len(s), 10_000)
		if _, err := io.WriteString(p, s[:n]); err != nil {
			return
		}
		s = s[n:]
	}
}

// longItem is an item of the first stream that takes 10 s on a slow link.
func longItem() string {
	return `{"stream":1,"data":"` + strings.Repeat("x", 1_000_000) + `"}` + "\n"
}

// A growing line is a sign of life, however long it takes.
func TestLongItemOnSlowLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, &stream.Client{StallTimeout: 6 * time.Second, Dial: scripted(t, func(p *peer) {
			p.answer(start)
			p.slowly(longItem())
			p.say(`{"stream":1,"event":"end","id":"1"}`)
			p.hold()
		})})
		if got, err := items(t.Context(), c, "", text("x")); len(got) != 1 || err != nil {
			t.Errorf("%d items, %v", len(got), err)
		}
	})
}

// The start timeout runs from the last byte of the request.
func TestLongRequestOnSlowLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, &stream.Client{Dial: scripted(t, func(p *peer) {
			begin := time.Now()
			for {
				_, err := p.r.ReadSlice('\n') // 4 kB, its buffer's size
				if err == nil {
					break
				}
				if !errors.Is(err, bufio.ErrBufferFull) {
					t.Error(err)
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
			if took := time.Since(begin); took < 20*time.Second {
				t.Errorf("the request took %v", took)
			}
			time.Sleep(1900 * time.Millisecond)
			p.say(`{"stream":1,"event":"start","id":"0"}`, `{"stream":1,"event":"end","id":"0"}`)
			p.hold()
		})})
		if got, err := items(t.Context(), c, "", text(strings.Repeat("x", 900_000))); len(got) != 0 || err != nil {
			t.Errorf("%d items, %v", len(got), err)
		}
	})
}

// A server that takes no more of a request is given up.
func TestRequestIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, &stream.Client{Dial: scripted(t, func(p *peer) {
			_, _ = p.r.Peek(100) // and no more
			time.Sleep(time.Minute)
		})})
		begin := time.Now()
		_, err := items(t.Context(), c, "", text(strings.Repeat("x", 900_000)))
		if took := time.Since(begin); kindOf(err) != stream.Unresponsive || took != 2*time.Second {
			t.Errorf("%v after %v, want unresponsive after 2s", err, took)
		}
	})
}

// beside runs a second request on a connection whose first stream has long been
// running, and returns how it ended and how long it took.
func beside(t *testing.T, second func(p *peer)) (took time.Duration, err error) {
	t.Helper()
	c := newClient(t, &stream.Client{Dial: scripted(t, func(p *peer) {
		p.answer(start, itemA)
		if _, ok := p.request(); !ok {
			t.Error("no second request")
		}
		go p.hold()
		second(p)
	})})
	var first sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	first.Go(func() { _, _ = items(ctx, c, "", text("first")) })
	synctest.Wait()
	begin := time.Now()
	_, err = items(t.Context(), c, "", text("second"))
	took = time.Since(begin)
	cancel()
	first.Wait()
	return took, err
}

// A small request whose answer is queued behind a long item of another stream
// does not time out.
func TestSmallRequestBesideLongItem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if took, err := beside(t, func(p *peer) {
			p.slowly(longItem() + longItem() + longItem()) // what the sockets held
			p.say(`{"stream":2,"event":"start","id":"0"}`, `{"stream":2,"event":"end","id":"0"}`)
			time.Sleep(time.Minute)
		}); err != nil {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// A start that never comes is not awaited for ever, whatever else comes.
func TestNoStartBesideOthers(t *testing.T) {
	for name, tt := range map[string]struct {
		item string
		want time.Duration
	}{
		"short items": {`{"stream":1,"data":"x"}` + "\n", stream.DefaultStallTimeout},
		"long items":  {longItem(), 168 * time.Second}, // in which 16 MiB come
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				took, err := beside(t, func(p *peer) {
					for range 400 {
						p.slowly(tt.item)
					}
				})
				if kindOf(err) != stream.Unresponsive || (took-tt.want).Abs() > 5*time.Second {
					t.Errorf("%v after %v, want unresponsive after %v", err, took, tt.want)
				}
			})
		})
	}
}

// A break that a client's own bounds cause concerns nobody else.
func TestOwnBoundsAreNotShared(t *testing.T) {
	nobody := func(ctx context.Context, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for name, tt := range map[string]struct {
		client *stream.Client
		script func(*peer)
		want   stream.Kind
		shared bool
	}{
		"dial":           {&stream.Client{Dial: nobody}, nil, stream.Unreachable, true},
		"dial sooner":    {&stream.Client{Dial: nobody, DialTimeout: time.Second}, nil, stream.Unreachable, false},
		"dial later":     {&stream.Client{Dial: nobody, DialTimeout: time.Minute}, nil, stream.Unreachable, true},
		"refused sooner": {&stream.Client{Dial: scripted(t), DialTimeout: time.Second}, nil, stream.Unreachable, true},
		"start":          {&stream.Client{}, answer(), stream.Unresponsive, true},
		"start sooner":   {&stream.Client{StartTimeout: time.Second}, answer(), stream.Unresponsive, false},
		"stall":          {&stream.Client{}, answer(start), stream.Stalled, true},
		"stall sooner":   {&stream.Client{StallTimeout: 14 * time.Second}, answer(start), stream.Stalled, false},
		"item":           {&stream.Client{ItemTimeout: time.Second}, answer(start), stream.Stalled, false},
		"item late":      {&stream.Client{ItemTimeout: time.Hour}, answer(start), stream.Stalled, true},
		"its own words":  {&stream.Client{ItemTimeout: time.Second, StartTimeout: time.Second}, answer("garbage"), stream.Protocol, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := tt.client
				if tt.script != nil {
					c.Dial = scripted(t, tt.script)
				}
				_, err := items(t.Context(), newClient(t, c), "", text("x"))
				if b := asBreak(t, err); b.Kind != tt.want || b.NoShare == tt.shared || b.NoReport || b.Paused {
					t.Errorf("%+v, want %s, shared %v", b, tt.want, tt.shared)
				}
			})
		})
	}
}
