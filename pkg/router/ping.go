package router

import (
	"context"
	"iter"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// eventPing is the event of a ping. On the wire it is one of the connection, and so of no
// handler's item.
const eventPing = "ping"

// IsPing reports whether i is no item of the answer, but says that none has come for
// [Request.Ping]. It then has an Index, that of the item that is due, and no Peer.
func (i Item) IsPing() bool { return i.Peer == nil && i.Event == eventPing }

// pair is what a sequence yields.
type pair struct {
	item Item
	err  error
}

// doWithPings does what do does, and yields a ping whenever nothing has come for
// req.Ping. The request runs in a goroutine of its own, which has ended when the sequence
// has. Only one of the two runs the caller's functions at a time, be they those of
// traces or the loop.
func (r *Router) doWithPings(ctx context.Context, req Request) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		pairs, next := make(chan pair), make(chan bool)
		var loop sync.Mutex // held by who runs the caller's functions
		var panicked any    // of a trace or a client
		var wg sync.WaitGroup
		defer wg.Wait()
		defer close(next)
		defer cancel(ErrLeft)
		wg.Go(func() {
			defer close(pairs)
			defer func() { panicked = recover() }()
			r.do(ctx, req, &loop)(func(i Item, err error) bool {
				select {
				case pairs <- pair{i, err}:
					return <-next
				case <-next: // closed, as no pair has been handed over
					return false
				}
			})
		})
		ping := func(due int) bool {
			loop.Lock()
			defer loop.Unlock()
			return yield(Item{Annotated: stream.Annotated{Event: eventPing}, Index: due}, nil)
		}
		due := max(req.From, len(req.Prefix))
		quiet := time.NewTimer(req.Ping)
		defer quiet.Stop()
		for {
			select {
			case p, ok := <-pairs:
				if !ok && panicked != nil {
					panic(panicked)
				}
				if !ok || !yield(p.item, p.err) {
					return
				}
				due = p.item.Index + 1
				next <- true
			case <-quiet.C:
				if !ping(due) {
					return
				}
			}
			quiet.Reset(req.Ping)
		}
	}
}
