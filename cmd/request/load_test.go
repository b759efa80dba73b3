package request

import (
	"context"
	"iter"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
)

// crowd is a client whose answers are empty. It notes how many goroutines there
// are when it is asked.
type crowd struct{ most atomic.Int64 }

func (c *crowd) Stream(context.Context, discovery.Instance, stream.Request) iter.Seq2[stream.Annotated, error] {
	return func(func(stream.Annotated, error) bool) {
		if n := int64(runtime.NumGoroutine()); n > c.most.Load() {
			c.most.Store(n)
		}
	}
}

// TestLoadNeedsNoMoreWorkersThanRequests makes two requests with a concurrency of 100,000.
func TestLoadNeedsNoMoreWorkersThanRequests(t *testing.T) {
	client := &crowd{}
	r := router.New(router.Config{
		Source: discovery.Static(discovery.Instance{ID: 1, Transport: discovery.NDJSON, Address: "nowhere:1"}),
		Client: client,
	})
	defer r.Close()
	l := &load{router: r, request: router.Request{Data: stream.String("")}, count: 2, concurrency: 100_000}
	if total := l.run(t.Context()); total.requests != 2 || total.err != nil {
		t.Errorf("%d requests, %v", total.requests, total.err)
	}
	// Far less than the workers, and more than all other tests have.
	if n := client.most.Load(); n > 50_000 {
		t.Errorf("%d goroutines for 2 requests", n)
	}
}
