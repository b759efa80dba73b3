package openai

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/request-migration/migrate/pkg/engine/openai/openaitest" //nolint:revive // a language of steps
	"github.com/request-migration/migrate/pkg/stream"
)

const (
	firstTime = 20 * time.Second
	itemTime  = 3 * time.Second
)

// wait is a step that takes that long.
func wait(d time.Duration) Step {
	return func(*Wire) bool { time.Sleep(d); return true }
}

// Each row is an engine that is slow in one way, on a fake clock. The kind and
// the time at which the request ends are exact.
func TestTimeouts(t *testing.T) {
	role := Chunk(`{"role":"assistant","content":""}`, "null")
	progress := `{"choices":[{"index":0,"delta":{"role":"assistant"}}],"prompt_progress":{"total":9,"processed":1}}`
	call := Chunk(`{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":"{"}}]}`, "null")
	reasoning := Chunk(`{"reasoning":"hm"}`, "null")
	for _, test := range []struct {
		name  string
		steps []Step
		kind  string
		after time.Duration
	}{
		{"silent from the start", []Step{Silent()}, "failed", firstTime},
		{"a header, and nothing more", []Step{Hang()}, "failed", firstTime},
		{"the role alone", []Step{wait(time.Second), Events(role), Hang()}, "failed", firstTime},
		{"empty deltas", []Step{wait(time.Second), Events(Chunk("{}", "null"), Chunk(`{"content":""}`, "null")), Hang()}, "failed", firstTime},
		{"comments", []Step{wait(10 * time.Second), Raw(": ping\n\n"), wait(5 * time.Second), Raw(":\n\n"), Hang()}, "failed", firstTime},
		{"progress starts the first clock anew", []Step{wait(15 * time.Second), Events(progress), wait(15 * time.Second), Events(progress), Hang()}, "failed", 30*time.Second + firstTime},
		{"no progress behind the first text", []Step{Content("a"), wait(2 * time.Second), Events(progress), Hang()}, "failed", itemTime},
		{"text, and then none", []Step{wait(time.Second), Content("a"), wait(2 * time.Second), Content("b"), Hang()}, "failed", 3*time.Second + itemTime},
		{"text, and then comments and empty deltas", []Step{Content("a"), wait(2 * time.Second), Raw(": ping\n\n"), Events(Chunk("{}", "null"), role), Hang()}, "failed", itemTime},
		{"reasoning is text", []Step{wait(19 * time.Second), Events(reasoning), wait(2 * time.Second), Events(reasoning), Hang()}, "failed", 21*time.Second + itemTime},
		{"a held call is one", []Step{wait(19 * time.Second), Events(call), wait(2 * time.Second), Events(call), Hang()}, "failed", 21*time.Second + itemTime},
		{"a finish, and no end", []Step{Content("a"), Events(Chunk("{}", `"stop"`)), Hang()}, "failed", itemTime},
		{"slow, but in time", []Step{wait(19 * time.Second), Content("a"), wait(2 * time.Second), Content("b"), wait(2 * time.Second), Finish("stop")}, "end", 23 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &Provider{OwnedBy: "llamacpp", InMemory: true, Misbehave: misbehave(0, test.steps...)}
				e := newEngine(t, p, Config{FirstItemTimeout: firstTime, ItemTimeout: itemTime})
				began := time.Now()
				got := ask(t, e, chat(""))
				got.check(t, test.kind, "from the engine for")
				if took := time.Since(began); took != test.after {
					t.Errorf("it took %v, want %v", took, test.after)
				}
				synctest.Wait()
				if want := test.kind != "end"; (p.Gone() == 1) != want {
					t.Errorf("%d requests were cancelled at the engine, want %t", p.Gone(), want)
				}
				time.Sleep(time.Minute) // idle connections close
			})
		})
	}
}

// A model may have a first timeout of its own, by the name that it is listed as.
func TestFirstItemTimeoutOfAModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Provider{OwnedBy: "vllm", InMemory: true, Misbehave: misbehave(0, Silent())}
		e := newEngine(t, p, Config{
			Models: []Pick{{Name: "mine", ID: "test-model"}}, FirstItemTimeout: firstTime,
			FirstItemTimeouts: map[string]time.Duration{"mine": 10 * time.Minute},
		})
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		req := chat(`,"model":"mine"`)
		err := e.Handle(ctx, &req, func(stream.Annotated) error { return nil })
		if kindOfError(err) != "failed" || time.Since(began) != 10*time.Minute {
			t.Errorf("ended as %v after %v, want failed after 10m", err, time.Since(began))
		}
		time.Sleep(time.Minute)
	})
}

// While the client does not read, the item clock stands still.
func TestClientDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Provider{OwnedBy: "vllm", InMemory: true, Misbehave: misbehave(1, wait(2*time.Second), Content("b"), Hang())}
		e := newEngine(t, p, Config{FirstItemTimeout: firstTime, ItemTimeout: itemTime})
		began, items := time.Now(), 0
		req := chat("")
		err := e.Handle(t.Context(), &req, func(stream.Annotated) error {
			if items++; items == 2 {
				time.Sleep(time.Hour)
			}
			return nil
		})
		if kindOfError(err) != "failed" || items != 3 {
			t.Errorf("ended as %v with %d items, want failed with 3", err, items)
		}
		// The second text was there when the client read again.
		if took := time.Since(began); took != time.Hour+itemTime {
			t.Errorf("it took %v, want %v", took, time.Hour+itemTime)
		}
		time.Sleep(time.Minute)
	})
}

// An engine with 2 slots and 6 requests is busy, not dead: those that wait too
// long are refused as overloaded.
func TestBusyEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Provider{OwnedBy: "llamacpp", InMemory: true, Slots: 2, Pace: time.Second} // 21 s an answer
		e := newEngine(t, p, Config{FirstItemTimeout: 15 * time.Second, ItemTimeout: 2 * itemTime})
		e.ask(t.Context())
		var mu sync.Mutex
		kinds := map[string]int{}
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				req := chat("")
				err := e.Handle(t.Context(), &req, func(stream.Annotated) error { return nil })
				mu.Lock()
				defer mu.Unlock()
				kinds[kindOfError(err)]++
			})
		}
		all.Wait()
		if kinds["end"] != 2 || kinds["overloaded"] != 4 {
			t.Errorf("they ended as %v, want 2 answers and 4 overloaded", kinds)
		}
		time.Sleep(time.Minute)
	})
}

// A dead engine is not busy because it was well before.
func TestSilentBehindOtherStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Provider{OwnedBy: "llamacpp", InMemory: true, Misbehave: func(r Request) (int, []Step) {
			if r.Number > 1 {
				return 0, []Step{Silent()}
			}
			return 0, nil
		}}
		e := newEngine(t, p, Config{FirstItemTimeout: firstTime})
		ask(t, e, chat("")).check(t, "end", "")
		time.Sleep(time.Millisecond)
		ask(t, e, chat("")).check(t, "failed", "no first text")
		time.Sleep(time.Minute)
	})
}

// Time in which this process did not run is not the engine's silence: what came
// meanwhile counts first.
func TestThisProcessStoodStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		c := startClock(cancel, firstTime, itemTime)
		defer c.stop()
		c.mu.Lock()
		c.deadline = c.deadline.Add(-time.Minute) // the timer rings a minute late
		c.mu.Unlock()
		time.Sleep(firstTime + stopTime/2)
		if ctx.Err() != nil {
			t.Error("the request was cancelled at once")
		}
		c.got()
		time.Sleep(itemTime - time.Millisecond)
		if ctx.Err() != nil {
			t.Error("what came meanwhile did not count")
		}
		time.Sleep(2 * time.Millisecond)
		if !errors.Is(context.Cause(ctx), errSilent) {
			t.Error("later silence does not count")
		}
	})
}
