//go:build linux

package cmd_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A relay carries connections to a server, over a long link if it has a delay:
// what a kernel does with packets where it has netem, which not every one has.
type relay struct {
	delay  time.Duration // of each byte, one way
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	requests, answers way
}

// A way is one of the two directions of a [relay].
type way struct {
	underWay, most atomic.Int64 // bytes: now, and the highest that it ever was
}

// startRelay accepts on l, until the test ends, what dial connects further.
func startRelay(t *testing.T, l net.Listener, delay time.Duration, dial func(context.Context) (net.Conn, error)) *relay {
	t.Helper()
	r := &relay{delay: delay}
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(t.Context()))
	r.wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return // closed with the test
			}
			server, err := dial(r.ctx)
			if err != nil {
				client.Close()
				continue
			}
			r.connect(client, server)
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.cancel()
		r.wg.Wait()
	})
	return r
}

// connect carries bytes both ways until one side ends.
func (r *relay) connect(client, server net.Conn) {
	stop := context.AfterFunc(r.ctx, func() {
		client.Close()
		server.Close()
	})
	var both sync.WaitGroup
	both.Go(func() { r.carry(server, client, &r.requests) })
	both.Go(func() { r.carry(client, server, &r.answers) })
	r.wg.Go(func() {
		both.Wait()
		stop()
	})
}

// piece is some bytes that are under way.
type piece struct {
	bytes []byte
	due   time.Time
}

// carry carries bytes from src to dst until one of them ends, and closes both.
func (r *relay) carry(dst, src net.Conn, w *way) {
	pieces := make(chan piece, 1024) // some megabytes at the least
	var writer sync.WaitGroup
	writer.Go(func() {
		defer dst.Close()
		for p := range pieces {
			select {
			case <-time.After(time.Until(p.due)):
			case <-r.ctx.Done():
			}
			_, _ = dst.Write(p.bytes) // if it has failed, so will reading
			w.underWay.Add(-int64(len(p.bytes)))
		}
	})
	for {
		buf := make([]byte, 64<<10)
		n, err := src.Read(buf)
		if n > 0 {
			due := time.Now().Add(r.delay)
			if now := w.underWay.Add(int64(n)); now > w.most.Load() {
				w.most.Store(now)
			}
			pieces <- piece{buf[:n], due}
		}
		if err != nil {
			break
		}
	}
	close(pieces)
	writer.Wait()
	src.Close()
}
