package cmd

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// probeTimeout bounds each part of a probe, to connect and to answer, as requests
// do by default.
const probeTimeout = 2 * time.Second

// maxProbes is how many run at once: below what a process may have of open
// files, by the usual limit of 1024.
const maxProbes = 256

// probeResult is what an instance made of a probe: the time to its answer, or the
// break in place of one.
type probeResult struct {
	MS     *float64    `json:"ms,omitempty"` // to the microsecond
	Kind   stream.Kind `json:"kind,omitempty"`
	Reason string      `json:"reason,omitempty"`
}

// probeAll pings every instance that requests can be sent to, many at a time, and
// returns when all have answered or ctx has ended.
func (v instancesView) probeAll(ctx context.Context, log *slog.Logger) {
	client := &stream.Client{DialTimeout: probeTimeout, StartTimeout: probeTimeout, Logger: log}
	defer client.Close()
	var wg sync.WaitGroup
	free := make(chan struct{}, maxProbes)
	for i := range v.Rows {
		r := &v.Rows[i]
		if !r.routable {
			continue
		}
		free <- struct{}{} // a probe is short: it ends with ctx, too
		wg.Go(func() {
			r.Probe = r.probe(ctx, client)
			<-free
		})
	}
	wg.Wait()
}

// probe asks the server whether it is the one of the record. That is no request:
// it takes no place and runs no handler.
func (r *instanceRow) probe(ctx context.Context, client *stream.Client) *probeResult {
	began := time.Now()
	err := client.Ping(ctx, r.Address, r.to)
	if err == nil {
		ms := float64(time.Since(began).Microseconds()) / 1000
		return &probeResult{MS: &ms}
	}
	if b, ok := errors.AsType[*stream.Break](err); ok {
		return &probeResult{Kind: b.Kind, Reason: b.Text()}
	}
	return nil // ctx has ended
}
