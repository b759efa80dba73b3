// Package remote has what the stores share that keep their records behind a network: their
// calls and goroutines end with the store, tries have pauses, an outage is told once, and a
// reader gets the newest set.
package remote

import (
	"context"
	"sync"

	"github.com/request-migration/migrate/pkg/discovery"
)

// A Life is that of a store: its calls and goroutines, which Close ends and waits for. The
// zero Life is not usable; make one with [NewLife]. It is safe for concurrent use.
type Life struct {
	Context context.Context // ended by Close, with [discovery.ErrClosed]

	cancel  context.CancelCauseFunc
	closing sync.Once

	mu     sync.Mutex // guards what follows; wg is added to only while closed is false
	closed bool
	wg     sync.WaitGroup // calls under way, and goroutines
}

// NewLife returns a life that has begun.
func NewLife() *Life {
	l := &Life{}
	l.Context, l.cancel = context.WithCancelCause(context.Background())
	return l
}

// Enter begins a call or a goroutine that Close ends and waits for. The context that it
// returns ends with ctx, or with [discovery.ErrClosed] as its cause. The caller must call
// leave at the end. After Close the error is [discovery.ErrClosed].
func (l *Life) Enter(ctx context.Context) (_ context.Context, leave func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, nil, discovery.ErrClosed
	}
	l.wg.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(l.Context, func() { cancel(discovery.ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
		l.wg.Done()
	}, nil
}

// Go runs f in a goroutine that Close waits for. The caller has entered.
func (l *Life) Go(f func()) { l.wg.Go(f) }

// End ends the life for a test that ends its store like a crash.
func (l *Life) End() {
	l.cancel(discovery.ErrClosed)
	l.wg.Wait()
}

// Close ends the life, waits for calls and goroutines, and then runs after, once.
func (l *Life) Close(after func()) {
	l.closing.Do(func() {
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
		l.End()
		after()
	})
}
