package stream_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// farServer answers a request with n lines of 16 KiB, as fast as its credit
// allows. Credit takes roundTrip to take effect, and at most burst lines are
// sent at once. At the end it reports the most credit that it has had, in bytes, with
// what had yet to take effect.
func farServer(n, burst int, roundTrip time.Duration, most chan<- int) func(*peer) {
	items := n
	return func(p *peer) {
		a, ok := p.request()
		if !ok {
			return
		}
		var mu sync.Mutex
		start := fmt.Sprintf(`{"stream":%d,"event":"start","id":"0"}`, a.Stream)
		allowed, coming, had := credit-len(start+"\n"), 0, credit
		more := sync.NewCond(&mu)
		closed := false
		go func() {
			for {
				line, err := p.r.ReadBytes('\n')
				mu.Lock()
				closed = err != nil
				more.Signal()
				mu.Unlock()
				if err != nil {
					return
				}
				var said struct{ Event, ID string }
				if json.Unmarshal(line, &said) != nil || said.Event != "credit" {
					continue
				}
				grant, _ := strconv.Atoi(said.ID) // 0 shows soon enough
				mu.Lock()
				coming += grant
				had = max(had, allowed+coming)
				mu.Unlock()
				time.AfterFunc(roundTrip, func() {
					mu.Lock()
					defer mu.Unlock()
					coming -= grant
					allowed += grant
					more.Signal()
				})
			}
		}()
		p.say(start)
		line := fmt.Appendf(nil, `{"stream":%d,"data":"%s"}`+"\n", a.Stream, strings.Repeat("x", 16<<10-50))
		for n > 0 {
			mu.Lock()
			for allowed <= 0 && !closed {
				more.Wait()
			}
			lines := min(burst, n, (max(allowed, 0)+len(line)-1)/len(line))
			allowed -= lines * len(line)
			mu.Unlock()
			if lines == 0 {
				return // the client has gone
			}
			_, _ = p.Write(bytes.Repeat(line, lines)) // the client's view is what is tested
			n -= lines
		}
		p.say(fmt.Sprintf(`{"stream":%d,"event":"end","id":"%d"}`, a.Stream, items))
		time.Sleep(2 * roundTrip)
		mu.Lock()
		defer mu.Unlock()
		most <- had
		for !closed {
			more.Wait()
		}
	}
}

// On a long link the window grows until it no longer limits the stream: 64 MiB
// take as long as a few windows, not 256.
func TestWindowFillsLongLink(t *testing.T) {
	for _, tt := range []struct {
		roundTrip time.Duration
		burst     int // lines at once
	}{
		{100 * time.Millisecond, 2}, {100 * time.Millisecond, 64}, {300 * time.Millisecond, 2}, {20 * time.Millisecond, 1000},
	} {
		t.Run(fmt.Sprintf("%v, %d", tt.roundTrip, tt.burst), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				most := make(chan int, 1)
				c := newClient(t, &stream.Client{Dial: scripted(t, farServer(4096, tt.burst, tt.roundTrip, most))})
				begin := time.Now()
				n := 0
				for _, err := range c.Stream(t.Context(), "", text("x")) {
					if err != nil {
						t.Fatal(err)
					}
					n++
				}
				// A window is 4 MiB after four of 0.25, 0.5, 1 and 2; then 15 are left.
				if took := time.Since(begin); n != 4096 || took > 40*tt.roundTrip {
					t.Errorf("%d items in %v, want 4096 in %v", n, took, 40*tt.roundTrip)
				}
				if n := <-most; n > 4<<20+16<<10 { // a line may overrun what there is
					t.Errorf("the server might send %d bytes at once", n)
				}
			})
		})
	}
}

// A caller who is slower than the link never widens the window, so what is held
// stays small.
func TestWindowOfSlowCaller(t *testing.T) {
	for name, pause := range map[string]time.Duration{"slow": 200 * time.Millisecond, "nearly quick": 10 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				most := make(chan int, 1)
				c := newClient(t, &stream.Client{Dial: scripted(t, farServer(1024, 64, time.Millisecond, most))})
				n := 0
				for _, err := range c.Stream(t.Context(), "", text("x")) {
					if err != nil {
						t.Fatal(err)
					}
					time.Sleep(pause)
					n++
				}
				if most := <-most; n != 1024 || most > credit {
					t.Errorf("%d items, and the server might send %d bytes at once, want %d at most", n, most, credit)
				}
			})
		})
	}
}

// MaxWindow bounds how far a server may be ahead, but never below what a stream begins with.
func TestMaxWindow(t *testing.T) {
	for bound, want := range map[int]int{1 << 20: 1 << 20, 300 << 10: 300 << 10, 1: credit} {
		t.Run(strconv.Itoa(bound), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				most := make(chan int, 1)
				c := newClient(t, &stream.Client{Dial: scripted(t, farServer(1024, 2, 100*time.Millisecond, most)), MaxWindow: bound})
				for _, err := range c.Stream(t.Context(), "", text("x")) {
					if err != nil {
						t.Fatal(err)
					}
				}
				// What was taken is credited by the quarter, so some of it may not be yet.
				if n := <-most; n > want+16<<10 || n < want/2 {
					t.Errorf("the server might send %d bytes at most, want about %d", n, want)
				}
			})
		})
	}
}
