package stream_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

const (
	credit  = 256 << 10 // what a stream starts with
	reading = 128 << 10 // more than either end reads at a time
)

// flood repeats data until the client closes the connection or has taken far
// too much, and returns how many bytes the client took.
func (p *peer) flood(s string) int {
	const tooMuch = 128 << 20
	n := 0
	for n < tooMuch {
		m, err := io.WriteString(p, s)
		n += m
		if err != nil {
			break
		}
	}
	return n
}

// TestGarbage asks servers that speak something else. A client never takes that
// for an answer, and never waits longer than its bounds.
func TestGarbage(t *testing.T) {
	shapes := []string{
		`[]`, `"x"`, `5`, `null`, `true`, `{}`, `[{"stream":1}]`, `{"stream":"1","data":"x"}`, `{"stream":1.5,"data":"x"}`,
		`{"stream":-1,"data":"x"}`, `{"stream":{},"data":"x"}`, `{"stream":1,"event":7}`, `{"stream":1,"comment":"x"}`,
		`{"stream":1,"id":1}`, `{"stream":1,"data":"x"},`, `{"stream":1,"data":"x"`, `{"stream":1,"data":"x"}]`, ` `, ``,
		`{"id":1,"jsonrpc":"2.0","result":"x"}`, strings.Repeat("[", 100_000),
	}
	const tls = "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03\x03"
	for _, tt := range []struct {
		name   string
		script func(*peer)
		want   stream.Kind
		within time.Duration
	}{
		{"HTTP", answer("HTTP/1.1 400 Bad Request\r", "Content-Type: text/plain\r", "\r", "400 Bad Request"), stream.Protocol, 0},
		{"TLS alert", half("\x15\x03\x01\x00\x02\x02\x16"), stream.Truncated, 0},
		{"TLS hello", func(p *peer) { half(tls)(p); p.hold() }, stream.Unresponsive, 2 * time.Second},
		{"TLS hello with newline", answer(tls), stream.Protocol, 0},
		{"SSH", answer("SSH-2.0-OpenSSH_9.9\r"), stream.Protocol, 0},
		{"drip", drip(strings.Repeat(`{"stream":1,"event":"start","id":"0"}`+"\n", 10)), stream.Unresponsive, 15 * time.Second},
		{"drip, then nothing", func(p *peer) { drip(`{"stream":1,"ev`)(p); p.hold() }, stream.Unresponsive, 15 * time.Second},
		{"newlines", answer("", ""), stream.Protocol, 0},
		{"NULs", answer("\x00\x00\x00"), stream.Protocol, 0},
	} {
		t.Run(tt.name, func(t *testing.T) { testGarbage(t, tt.script, tt.want, tt.within) })
	}
	for i, line := range shapes {
		t.Run(fmt.Sprintf("shape %d", i), func(t *testing.T) {
			testGarbage(t, answer(start, line, end2), stream.Protocol, 0)
		})
	}
	for seed := range uint64(100) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			b := make([]byte, 1+r.IntN(100_000))
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			lines := []string{start}[:seed%2]
			testGarbage(t, func(p *peer) { half(string(b), lines...)(p); p.hold() }, "", 15*time.Second)
		})
	}
}

func testGarbage(t *testing.T, script func(*peer), want stream.Kind, within time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, &stream.Client{Dial: scripted(t, script)})
		begin := time.Now()
		got, err := items(t.Context(), c, "", text("x"))
		if err == nil || len(got) > 0 || want != "" && kindOf(err) != want {
			t.Errorf("got %q, %v, want no items and %q", got, err, want)
		}
		if took := time.Since(begin); took > within {
			t.Errorf("noticed after %v, want %v", took, within)
		}
	})
}

// A server that sends without end is held to the same bounds as a silent one.
func TestFloodOfRemarks(t *testing.T) {
	addr := listen(t, func(p *peer) {
		p.answer()
		go p.hold()
		p.flood(`{"stream":1,"comment":["soon"]}` + "\n")
	})
	for range 3 {
		c := newClient(t, &stream.Client{Dial: toAddr(addr), StartTimeout: time.Millisecond})
		if _, err := items(t.Context(), c, "", text("x")); kindOf(err) != stream.Unresponsive {
			t.Errorf("%v, want unresponsive", err)
		}
		c.Close()
	}
}

// The client holds no more of an endless line than of the longest valid one.
func TestEndlessLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var took atomic.Int64
		c := newClient(t, &stream.Client{Dial: scripted(t, func(p *peer) {
			p.answer(start)
			took.Store(int64(p.flood(strings.Repeat("x", 1000))))
		})})
		_, err := items(t.Context(), c, "", text("x"))
		if kindOf(err) != stream.Protocol {
			t.Errorf("%v, want protocol", err)
		}
		synctest.Wait()
		if n := took.Load(); n > 2*stream.MaxLine {
			t.Errorf("client took %d bytes of the line", n)
		}
	})
}

// A server that exceeds its credit is cut off before it fills memory.
func TestServerIgnoresCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var took atomic.Int64
		c := newClient(t, &stream.Client{Dial: scripted(t, func(p *peer) {
			p.answer(start)
			go p.hold()
			took.Store(int64(p.flood(`{"stream":1,"data":"` + strings.Repeat("x", 1000) + "\"}\n")))
		})})
		var err error
		n := 0
		for _, err = range c.Stream(t.Context(), "", text("x")) {
			if n++; n == 1 {
				synctest.Wait() // the caller is slow: it is all held for it
				if held := took.Load(); held == 0 || held > credit+2*stream.MaxLine+2*reading {
					t.Errorf("client took %d bytes for a caller who does not read", held)
				}
			}
		}
		if kindOf(err) != stream.Protocol || !strings.Contains(err.Error(), "credit") {
			t.Errorf("%v, want protocol", err)
		}
	})
}

// The same after the caller has left.
func TestServerIgnoresCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var took atomic.Int64
		c := newClient(t, &stream.Client{Dial: scripted(t, func(p *peer) {
			p.answer(start, itemA)
			go p.hold()
			time.Sleep(time.Second) // the caller has left
			took.Store(int64(p.flood(`{"stream":1,"data":"` + strings.Repeat("x", 1000) + "\"}\n")))
		})})
		for _, err := range c.Stream(t.Context(), "", text("x")) {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := took.Load(); n == 0 || n > credit+stream.MaxLine+2*reading {
			t.Errorf("client took %d bytes for a request that it has cancelled", n)
		}
	})
}

// A complete answer stays complete, whatever comes after it.
func TestItemsAfterEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		after := strings.Repeat(itemA+"\n", 10_000)
		c := newClient(t, &stream.Client{Dial: scripted(t,
			func(p *peer) {
				p.answer(start, itemA, itemB, end2+"\n"+strings.TrimSuffix(after, "\n"))
				answer(start, itemA, itemB, end2)(p) // if all of that came before the end was read
			},
			answer(start, itemA, itemB, end2),
		)})
		for range 2 {
			if got, err := items(t.Context(), c, "", text("x")); len(got) != 2 || err != nil {
				t.Errorf("%d items, %v, want 2", len(got), err)
			}
			synctest.Wait()
		}
	})
}

// Lines for streams that were never opened break the connection, even if other
// streams were opened and have ended.
func TestLinesForNobody(t *testing.T) {
	for _, line := range []string{`{"stream":0,"data":"x"}`, `{"stream":3,"data":"x"}`, `{"stream":1,"data":"x"}`, `{"stream":9007199254740993,"event":"end","id":"0"}`} {
		synctest.Test(t, func(t *testing.T) {
			c := newClient(t, &stream.Client{Dial: scripted(t, func(p *peer) {
				p.answer(start, itemA, itemB, end2)
				p.answer(start, itemA, line)
				p.hold()
			})})
			if _, err := items(t.Context(), c, "", text("x")); err != nil {
				t.Error(err)
			}
			if got, err := items(t.Context(), c, "", text("x")); kindOf(err) != stream.Protocol || len(got) != 1 {
				t.Errorf("%s: %q, %v, want one item and protocol", line, got, err)
			}
		})
	}
}

// Lines may still come for a cancelled request, but not for others.
func TestLinesForNobodyAfterCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, &stream.Client{Dial: scripted(t, func(p *peer) {
			p.answer(start, itemA)
			p.answer(`{"stream":1,"data":"on its way"}`, start, itemA, `{"stream":3,"data":"x"}`)
			p.hold()
		})})
		for _, err := range c.Stream(t.Context(), "", text("x")) {
			if err != nil {
				t.Error(err)
			}
			break
		}
		if got, err := items(t.Context(), c, "", text("x")); kindOf(err) != stream.Protocol || len(got) != 1 {
			t.Errorf("%q, %v, want one item and protocol", got, err)
		}
	})
}
