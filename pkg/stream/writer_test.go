package stream

import (
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// gate is a connection whose writes wait to be let through.
type gate struct {
	net.Conn // what a writer does not call
	pass     chan error
	writes   []string
}

func (g *gate) Write(p []byte) (int, error) {
	g.writes = append(g.writes, string(p))
	if err := <-g.pass; err != nil {
		return 0, err
	}
	return len(p), nil
}

func (g *gate) SetWriteDeadline(time.Time) error { return nil }

// add adds a line like a stream: it waits for its turn first.
func (w *lineWriter) add(line string) {
	var q waiter
	q.init(&w.mu)
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.open() && !w.mayAdd(&q) {
		w.turns.wait(&q)
	}
	if w.open() {
		w.buf = append(append(w.buf, line...), '\n')
		w.added()
	}
}

// testWriter runs a writer whose socket takes one write for each call of pass.
func testWriter(t *testing.T, test func(w *lineWriter, g *gate, done <-chan error)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{pass: make(chan error)}
		var w lineWriter
		w.init(g)
		done := make(chan error, 1)
		go func() { done <- w.run() }()
		synctest.Wait()
		test(&w, g, done)
	})
}

func (g *gate) expect(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	if got := strings.Join(g.writes, "|"); got != strings.Join(want, "|") {
		t.Fatalf("writes are %.200q, want %.200q", got, strings.Join(want, "|"))
	}
}

// A line goes out at once if the socket is free, and otherwise together with
// all others that came meanwhile.
func TestWritesAreCoalesced(t *testing.T) {
	testWriter(t, func(w *lineWriter, g *gate, done <-chan error) {
		w.add("a")
		g.expect(t, "a\n")
		w.add("b")
		w.add("c")
		w.add("d")
		g.expect(t, "a\n")
		g.pass <- nil
		g.expect(t, "a\n", "b\nc\nd\n")
		g.pass <- nil
		w.add("e")
		g.expect(t, "a\n", "b\nc\nd\n", "e\n")
		w.add("f")
		w.stop(true)
		w.add("too late")
		g.pass <- nil
		g.pass <- nil
		g.expect(t, "a\n", "b\nc\nd\n", "e\n", "f\n")
		if err := <-done; err != nil {
			t.Errorf("writer ended with %v", err)
		}
	})
}

// What waits for a socket is bounded; a stream that has more waits too.
func TestWriterIsBounded(t *testing.T) {
	testWriter(t, func(w *lineWriter, g *gate, done <-chan error) {
		line := strings.Repeat("x", 999)
		var adding sync.WaitGroup
		for range 10 {
			adding.Go(func() {
				for range 20 {
					w.add(line)
				}
			})
		}
		synctest.Wait()
		w.mu.Lock()
		if n := len(w.buf); n < maxPending || n >= maxPending+1000 {
			t.Errorf("%d bytes wait, want just %d", n, maxPending)
		}
		w.mu.Unlock()
		for range 20 {
			select {
			case g.pass <- nil:
			default:
			}
			synctest.Wait()
		}
		adding.Wait()
		w.stop(true)
		if err := <-done; err != nil {
			t.Error(err)
		}
		all := strings.Join(g.writes, "")
		if len(all) != 200*1000 || len(g.writes) > 10 {
			t.Errorf("%d bytes in %d writes, want 200000 in few", len(all), len(g.writes))
		}
	})
}

// After an error of the connection, or a stop, nobody waits and nothing is
// added.
func TestWriterEnds(t *testing.T) {
	broken := errors.New("broken pipe")
	for name, end := range map[string]func(*lineWriter, *gate){
		"error": func(_ *lineWriter, g *gate) { g.pass <- broken },
		"stop":  func(w *lineWriter, g *gate) { w.stop(false); g.pass <- net.ErrClosed },
	} {
		t.Run(name, func(t *testing.T) {
			testWriter(t, func(w *lineWriter, g *gate, done <-chan error) {
				w.add("a")
				synctest.Wait()
				w.add(strings.Repeat("x", maxPending))
				var waiting sync.WaitGroup
				waiting.Go(func() { w.add("waits for room") })
				synctest.Wait()
				end(w, g)
				waiting.Wait()
				w.add("too late")
				if err, want := <-done, map[string]error{"error": broken, "stop": net.ErrClosed}[name]; !errors.Is(err, want) {
					t.Errorf("writer ended with %v, want %v", err, want)
				}
				g.expect(t, "a\n")
				if len(w.buf) > 0 {
					t.Errorf("%d bytes wait for ever", len(w.buf))
				}
			})
		})
	}
}

// A buffer that a long line has grown is not kept.
func TestWriterGivesMemoryBack(t *testing.T) {
	testWriter(t, func(w *lineWriter, g *gate, done <-chan error) {
		for range 3 {
			w.add(strings.Repeat("x", MaxLine-1))
			w.add("short")
			for synctest.Wait(); w.writing; synctest.Wait() {
				g.pass <- nil
			}
		}
		if n := 3 * (MaxLine + len("short\n")); w.written != int64(n) || w.begun != w.written {
			t.Errorf("counts %d bytes begun and %d written, want %d", w.begun, w.written, n)
		}
		synctest.Wait()
		if n := cap(w.buf) + cap(w.spare); n > 2*keepBuffer {
			t.Errorf("holds %d bytes for nothing", n)
		}
		w.stop(true)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A stream that has rested while whole buffers went out without it may add to one
// that has room at once. If it queued among those who go first, a called stream
// that has to let them go first would wait for it, and it for the next buffer.
func TestRestedStreamNeedNotQueue(t *testing.T) {
	var w lineWriter
	w.init(nil)
	w.turns.swap = 1000
	w.turns.called = 1 // somebody's turn has come
	var q waiter
	q.init(&w.mu)
	q.left, q.greedy, q.swap = -1, true, 900
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.mayAdd(&q) {
		t.Error("it has to wait")
	}
	q.left, q.greedy, q.swap = -1, true, 999
	if w.mayAdd(&q) {
		t.Error("a stream that has just used up its turn need not wait")
	}
}
