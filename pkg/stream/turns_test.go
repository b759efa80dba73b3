package stream_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// sizes is a handler that sends items of the size that its request says, for
// ever.
func sizes(_ context.Context, req *stream.Request, send func(stream.Annotated) error) error {
	var n int
	if err := json.Unmarshal(req.Data, &n); err != nil {
		return err
	}
	item := stream.Annotated{Data: stream.String(strings.Repeat("x", n))}
	for {
		if err := send(item); err != nil {
			return err
		}
	}
}

// hogs starts streams 1 to n with items of the given sizes in turn, and more
// credit than they can use, and reads until all have started.
func hogs(t *testing.T, n int, size ...int) *peer {
	t.Helper()
	p := pipePeer(t, &stream.Server{Handler: func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		if string(req.Data) == `"tiny"` {
			return send(stream.Annotated{Data: req.Data})
		}
		return sizes(ctx, req, send)
	}})
	go func() {
		for i := range n {
			p.say(fmt.Sprintf(`{"stream":%d,"data":%d}`, i+1, size[i%len(size)]), fmt.Sprintf(`{"stream":%d,"event":"credit","id":"500000000"}`, i+1))
		}
	}()
	for got, old := make([]int, n), 0; old < n; {
		line := p.line()
		if line == `{"event":"ping"}` {
			continue
		}
		i := streamOf(t, line) - 1
		before := got[i]
		if got[i] += len(line); before < 64<<10 && got[i] >= 64<<10 {
			old++
		}
	}
	synctest.Wait()
	return p
}

// streamOf returns the stream number of a line.
func streamOf(t *testing.T, line string) int {
	t.Helper()
	number, ok := strings.CutPrefix(line, `{"stream":`)
	number, _, _ = strings.Cut(number, ",")
	n, err := strconv.Atoi(number)
	if !ok || err != nil {
		t.Fatalf("got %.100s, want a line of a stream", line)
	}
	return n
}

// settled reads when nothing is left to do but to read. So every stream has sent what it
// can before the next buffer goes out, however busy the machine is: a stream that has
// nothing to send yet has no claim to its share.
type settled struct{ io.Reader }

func (s settled) Read(p []byte) (int, error) {
	synctest.Wait()
	return s.Reader.Read(p)
}

// Busy streams are sent equally many bytes, whether their items are small or
// large.
func TestStreamsTakeTurns(t *testing.T) {
	for name, size := range map[string][]int{
		"small": {10}, "mixed": {10, 100, 1000, 10_000}, "long ones among them": {10, 10, 10, 200_000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n = 16
				p := hogs(t, n, size...)
				p.r = bufio.NewReaderSize(settled{p.r}, 64<<10)
				got := make([]int, n)
				all := 0
				for all < 24<<20 {
					line := p.line()
					got[streamOf(t, line)-1] += len(line) + 1
					all += len(line) + 1
				}
				for i, bytes := range got {
					if bytes < all/n*2/5 || bytes > all/n*5/2 {
						t.Errorf("stream %d got %d bytes, of which %d are its share: %d", i+1, bytes, all/n, got)
						break
					}
				}
				p.Close()
			})
		})
	}
}

// A short answer does not wait behind busy streams: little is queued before the
// socket, and its lines go first.
func TestShortBesideLong(t *testing.T) {
	for name, tt := range map[string]struct{ size, before int }{
		// Two buffers, and what is sent while its handler wakes up.
		"small items": {10, 512 << 10},
		// One buffer that is being written, and one that fills.
		"items of 1 MB": {1_000_000, 2_200_000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := hogs(t, 50, tt.size)
				for number := 100; number < 120; number++ {
					begun := fmt.Sprintf(`{"stream":%d,"event":"start","id":"0"}`, number)
					item := fmt.Sprintf(`{"stream":%d,"data":"tiny"}`, number)
					synctest.Wait() // until the server can send no more
					p.say(fmt.Sprintf(`{"stream":%d,"data":"tiny"}`, number))
					synctest.Wait() // until it has done with that what it can
					before := 0
					for line := p.line(); line != item; line = p.line() {
						if line != begun {
							before += len(line) + 1
						}
						if before > 100<<20 {
							t.Fatal("the answer does not come")
						}
					}
					if before > tt.before {
						t.Errorf("%d bytes came before a short answer, want at most %d", before, tt.before)
					}
				}
				p.Close()
			})
		})
	}
}

// A stream without credit waits without delaying the others.
func TestNoCreditHoldsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pipePeer(t, &stream.Server{Handler: sizes})
		go p.say(`{"stream":1,"data":100}`, `{"stream":2,"data":100}`, `{"stream":2,"event":"credit","id":"10000000"}`)
		got := map[int]int{}
		for got[2] < 10_000_000 {
			line := p.line()
			got[streamOf(t, line)] += len(line) + 1
		}
		if got[1] > credit+1000 {
			t.Errorf("%d bytes came on a credit of %d", got[1], credit)
		}
		p.Close()
	})
}

// Streams on one connection that all have more to send than fits are each sent to
// their end, and nobody waits for a turn that only a ping would bring: no time
// passes, which here is fake.
func TestManyStreamsEnd(t *testing.T) {
	for _, streams := range []int{2, 10, 100} {
		t.Run(strconv.Itoa(streams), func(t *testing.T) {
			for range 20 {
				synctest.Test(t, func(t *testing.T) { manyStreamsEnd(t, streams, 200_000/streams) })
			}
		})
	}
}

func manyStreamsEnd(t *testing.T, streams, each int) {
	t.Helper()
	l := servePipe(t, &stream.Server{Handler: func(_ context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		for range each {
			if err := send(stream.Annotated{Data: req.Data}); err != nil {
				return err
			}
		}
		return nil
	}})
	c := newClient(t, &stream.Client{MaxStreams: streams, Dial: l.dial})
	began := time.Now()
	ended := make(chan error, streams)
	for i := range streams {
		go func() {
			n := 0
			var failed error
			for _, err := range c.Stream(t.Context(), "", text(strings.Repeat("x", 10+i))) {
				if failed = err; err == nil {
					n++
				}
			}
			if failed == nil && n != each {
				failed = fmt.Errorf("%d items, want %d", n, each)
			}
			ended <- failed
		}()
	}
	for range streams {
		if err := await(t, ended, "the end of a stream beside others"); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 0 {
		t.Errorf("it took %v, as if streams had waited for a ping", took)
	}
}
