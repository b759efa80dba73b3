package instances

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// probeTimeout bounds connecting and answering, each as by default in a request.
const probeTimeout = 2 * time.Second

// maxProbes is how many probes run at once, each with an open file: well below the usual
// limit of 1024 a process.
const maxProbes = 256

// probeResult is the result of a probe: the time to the answer, or the break.
type probeResult struct {
	MS     *float64    `json:"ms,omitempty"` // rounded to a microsecond
	Kind   stream.Kind `json:"kind,omitempty"`
	Reason string      `json:"reason,omitempty"`
}

// probeAll pings every routable instance, many at a time, and returns when all have
// answered or ctx has ended.
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
		free <- struct{}{} // never long: probes have timeouts and end with ctx
		wg.Go(func() {
			r.Probe = r.probe(ctx, client)
			<-free
		})
	}
	wg.Wait()
}

// probe asks the server whether it is the one of the record. That is not a request: it
// does not count against the server's limit and runs no handler.
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
