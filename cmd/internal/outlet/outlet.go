// Package outlet writes to the standard streams, whose reader may be slow, stuck or
// gone.
package outlet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

const (
	// lastWrite is how long a write may still take once its context has ended. A live
	// reader needs less; a full pipe that nobody reads delays the end of a command by
	// no more than this.
	lastWrite = time.Second
	// outletBuffer is how many bytes may wait while others are written: as many as a
	// pipe holds, so that the next are ready when a reader has emptied the pipe.
	outletBuffer = 64 << 10
)

// errNotRead is the error of a write that was given up.
var errNotRead = errors.New("nobody reads it")

// Outlet writes to a standard stream from a goroutine of its own, so that nobody waits
// for ever for a full pipe that nobody reads. It writes at once and in order; what comes
// during a write goes into the next one. It is safe for concurrent use.
type Outlet struct {
	w io.Writer
	// within ends the waiting of Write.
	within context.Context
	// lossy lets the next be written when a write has failed. Else that is the
	// error of whatever follows, and failed is closed.
	lossy  bool
	failed chan struct{}
	wake   chan struct{} // has a value when there is something to write
	ended  sync.WaitGroup

	mu      sync.Mutex // guards what follows
	waiting []byte
	writing bool
	late    bool          // the write under way was given up
	moved   chan struct{} // closed when it is over; nil if nobody waits for that
	err     error
}

// NewAnswers returns an outlet for the output that the user asked for. Its Write waits
// until all is written, and the first error is that of everything that follows. Close
// releases it.
func NewAnswers(w io.Writer) *Outlet { return newOutlet(context.Background(), w, false) }

// NewLog returns an outlet for messages. Its Write waits for 1 s at most; what finds no
// room is dropped until the reader goes on. Close releases it.
func NewLog(w io.Writer) *Outlet {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return newOutlet(ctx, w, true)
}

func newOutlet(within context.Context, w io.Writer, lossy bool) *Outlet {
	o := &Outlet{w: w, within: within, lossy: lossy, failed: make(chan struct{}), wake: make(chan struct{}, 1)}
	o.ended.Go(o.run)
	return o
}

// Close ends the goroutine, unless a write that was given up still blocks it.
func (o *Outlet) Close() {
	close(o.wake)
	o.mu.Lock()
	late := o.late
	o.mu.Unlock()
	if !late {
		o.ended.Wait()
	}
}

func (o *Outlet) run() {
	var text []byte
	for range o.wake {
		o.mu.Lock()
		text, o.waiting = o.waiting, text[:0]
		o.writing = len(text) > 0 && o.err == nil
		writing := o.writing
		o.mu.Unlock()
		if !writing {
			continue
		}
		_, err := o.w.Write(text)
		o.mu.Lock()
		o.writing, o.late = false, false
		if err != nil && !o.lossy {
			o.err = err
			close(o.failed)
		}
		if o.moved != nil {
			close(o.moved)
			o.moved = nil
		}
		o.mu.Unlock()
	}
}

// Put queues a copy of p, and waits only for room; once ctx has ended, for 1 s at most.
func (o *Outlet) Put(ctx context.Context, p []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.err == nil && len(o.waiting) > 0 && len(o.waiting)+len(p) > outletBuffer {
		if err := o.await(ctx); err != nil {
			return err
		}
	}
	if o.err != nil {
		return o.err
	}
	o.waiting = append(o.waiting, p...)
	select {
	case o.wake <- struct{}{}:
	default: // it has a signal already
	}
	return nil
}

// Flush waits until everything is written. Once ctx has ended it goes on only while the
// reader takes something every second.
func (o *Outlet) Flush(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.err == nil && (o.writing || len(o.waiting) > 0) {
		if err := o.await(ctx); err != nil {
			return err
		}
	}
	return o.err
}

// await waits for the end of the current write, or of the next one. The caller holds
// o.mu, which await releases while it waits.
func (o *Outlet) await(ctx context.Context) error {
	if o.late && ctx.Err() != nil {
		return errNotRead
	}
	if o.moved == nil {
		o.moved = make(chan struct{})
	}
	moved := o.moved
	o.mu.Unlock()
	ok := closedWithin(ctx, moved)
	o.mu.Lock()
	if !ok {
		o.late = o.moved == moved
		return fmt.Errorf("%w: %w", errNotRead, context.Cause(ctx))
	}
	return nil
}

// closedWithin waits until c is closed; once ctx has ended, for lastWrite at most.
func closedWithin(ctx context.Context, c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	case <-ctx.Done():
	}
	timer := time.NewTimer(lastWrite)
	defer timer.Stop()
	select {
	case <-c:
		return true
	case <-timer.C:
		return false
	}
}

// write queues p and flushes.
func (o *Outlet) write(ctx context.Context, p []byte) error {
	if err := o.Put(ctx, p); err != nil {
		return err
	}
	return o.Flush(ctx)
}

// Write implements [io.Writer].
func (o *Outlet) Write(p []byte) (int, error) {
	if err := o.write(o.within, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Write writes p to w. If w is an [Outlet] it gives up 1 s after the end of ctx when
// nobody reads.
func Write(ctx context.Context, w io.Writer, p []byte) error {
	if o, ok := w.(*Outlet); ok {
		return o.write(ctx, p)
	}
	_, err := w.Write(p)
	return err
}

// FileOf returns the file that v, a reader or a writer, stands for, or nil.
func FileOf(v any) *os.File {
	if o, ok := v.(*Outlet); ok {
		v = o.w
	}
	f, _ := v.(*os.File)
	return f
}
