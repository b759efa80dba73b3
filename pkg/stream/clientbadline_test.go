package stream_test

import (
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// A line that is too long or cannot be decoded breaks only the stream that it
// begins with: the others go on, and so does the connection.
func TestBadLineHarmsItsStreamAlone(t *testing.T) {
	for name, line := range map[string]string{
		"too long":          `{"stream":2,"data":"` + strings.Repeat("x", 5*stream.MaxLine) + `"}`,
		"a little too long": `{"stream":2,"data":"` + strings.Repeat("x", stream.MaxLine) + `"}`,
		"too long, spaced":  `{ "stream": 2, "data":"` + strings.Repeat("x", 3*stream.MaxLine) + `"}`,
		"too long for us":   `{"stream":2,"data":"` + strings.Repeat("x", 31*stream.MaxLine) + `"}`,
		"no JSON":           `{"stream":2,Segmentation fault`,
		"no JSON, spaced":   ` {"stream" : 2 ,"data":}`,
		"no UTF-8":          "{\"stream\":2,\"data\":\"\xff\"}",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cancelled := make(chan bool, 1)
				c := newClient(t, &stream.Client{Dial: scripted(t, func(p *peer) {
					p.answer(start, itemA)
					p.answer(start, itemA)
					_, _ = io.WriteString(p, line+"\n")
					if line := p.line(); line != `{"stream":2,"event":"cancel"}` {
						t.Errorf("client says %s, want a cancel", line)
					}
					cancelled <- true
					p.say(`{"stream":2,"data":"on its way"}`, `{"stream":1,"data":"b"}`, `{"stream":1,"event":"end","id":"2"}`)
					p.answer(start, itemA, itemB, end2)
					p.hold()
				})})
				var first sync.WaitGroup
				first.Go(func() {
					if got, err := items(t.Context(), c, "", text("1")); len(got) != 2 || err != nil {
						t.Errorf("its neighbour: %q, %v", got, err)
					}
				})
				synctest.Wait()
				if got, err := items(t.Context(), c, "", text("2")); kindOf(err) != stream.Protocol || len(got) != 1 {
					t.Errorf("%q, %v, want one item and protocol", got, err)
				}
				first.Wait()
				if got, err := items(t.Context(), c, "", text("3")); len(got) != 2 || err != nil {
					t.Errorf("the next one: %q, %v", got, err)
				}
				select {
				case <-cancelled:
				case <-time.After(time.Minute):
					t.Error("the stream is not cancelled")
				}
			})
		})
	}
}

// A line without an end is skipped for a while, not for ever.
func TestEndlessLineOfOneStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took := make(chan int, 1)
		c := newClient(t, &stream.Client{Dial: scripted(t, func(p *peer) {
			p.answer(start)
			_, _ = io.WriteString(p, `{"stream":1,"data":"`)
			go p.hold()
			took <- p.flood(strings.Repeat("x", 10_000))
		})})
		if _, err := items(t.Context(), c, "", text("x")); kindOf(err) != stream.Protocol {
			t.Errorf("%v, want protocol", err)
		}
		select {
		case n := <-took:
			if n < 32<<20 || n > 34<<20 {
				t.Errorf("client took %d bytes of the line, want 32 MiB", n)
			}
		case <-time.After(time.Hour):
			t.Error("the client reads on for ever")
		}
	})
}
