package cmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// probeTimeout bounds one probe as a whole; it is what requests allow for each
// of connecting and starting.
const probeTimeout = 2 * time.Second

// maxProbes is how many run at once: below what a process may have of open
// files, by the usual limit of 1024.
const maxProbes = 256

// probeResult is what an instance made of a probe: the time to the end of its
// answer, or the break in place of one.
type probeResult struct {
	MS     *float64    `json:"ms,omitempty"` // to the microsecond
	Kind   stream.Kind `json:"kind,omitempty"`
	Reason string      `json:"reason,omitempty"`
}

// probeAll probes every instance that requests can be sent to, many at a time,
// and returns when all have answered or ctx has ended.
func probeAll(ctx context.Context, rows []instanceRow, log *slog.Logger) {
	var wg sync.WaitGroup
	free := make(chan struct{}, maxProbes)
	for i := range rows {
		r := &rows[i]
		if !(discovery.Instance{Transport: r.Transport, Address: r.Address}).Routable() {
			continue
		}
		free <- struct{}{} // a probe is short: it ends with ctx, too
		wg.Go(func() {
			r.Probe = probe(ctx, r.Address, log)
			<-free
		})
	}
	wg.Wait()
}

// probe sends an empty request to addr. A refusal of the request itself is an
// answer: handlers differ in what they take.
func probe(ctx context.Context, addr string, log *slog.Logger) *probeResult {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	// A connection of its own, as for the first request of any new client, and
	// one that tells how far it got.
	var got contact
	client := &stream.Client{Dial: got.dial, Logger: log}
	defer client.Close()
	began := time.Now()
	var failed error
	for _, err := range client.Stream(ctx, addr, stream.Request{ID: "probe", Data: stream.String("")}) {
		failed = err
	}
	if failed == nil || errors.Is(failed, stream.Application) {
		ms := float64(time.Since(began).Microseconds()) / 1000
		return &probeResult{MS: &ms}
	}
	if b, ok := errors.AsType[*stream.Break](failed); ok {
		return &probeResult{Kind: b.Kind, Reason: reasonOf(b)}
	}
	return got.late()
}

// reasonOf returns what a break says beside its kind.
func reasonOf(b *stream.Break) string {
	if b.Err != nil {
		return fmt.Sprintf("%s: %v", b.Reason, b.Err)
	}
	return b.Reason
}

// contact notes how far a connection got.
type contact struct{ made, heard atomic.Bool }

func (c *contact) dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c.made.Store(true)
	return contactConn{conn, c}, nil
}

// contactConn is a connection that notes whether anything came.
type contactConn struct {
	net.Conn
	contact *contact
}

// Read implements [net.Conn].
func (c contactConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.contact.heard.Store(true)
	}
	return n, err
}

// late is the result of a probe whose time was up: the kind of break that the
// request would have come to.
func (c *contact) late() *probeResult {
	switch {
	case c.heard.Load():
		return &probeResult{Kind: stream.Stalled, Reason: fmt.Sprintf("no end within %v", probeTimeout)}
	case c.made.Load():
		return &probeResult{Kind: stream.Unresponsive, Reason: fmt.Sprintf("no start within %v", probeTimeout)}
	}
	return &probeResult{Kind: stream.Unreachable, Reason: fmt.Sprintf("no connection within %v", probeTimeout)}
}
