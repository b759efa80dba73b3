package request

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/request-migration/migrate/cmd/internal/backend"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/router/receipt"
	"github.com/request-migration/migrate/pkg/stream"
)

// errWrongAnswer is the error of a request that succeeded with a wrong answer. It is always
// a fault of this program or of the server.
var errWrongAnswer = errors.New("wrong answer")

// load makes many requests at once and checks every answer.
type load struct {
	router      *router.Router
	request     router.Request
	text        string // the answer of an echo server
	timeout     time.Duration
	count       int
	concurrency int
	progress    *progress
	// out, if not nil, also prints each request. mu guards it.
	out output
	mu  sync.Mutex
}

// run makes the requests and returns their summary. Only the end of ctx stops it early.
func (l *load) run(ctx context.Context) *summary {
	total := newSummary()
	began := time.Now()
	next := make(chan struct{})
	var workers sync.WaitGroup
	for range min(l.concurrency, l.count) {
		workers.Go(func() {
			for range next {
				r := l.one(ctx)
				total.add(r)
				l.progress.add()
			}
		})
	}
	for range l.count {
		select {
		case next <- struct{}{}:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	workers.Wait()
	total.took = time.Since(began)
	l.progress.clear()
	return total
}

// loadResult is the result of one request.
type loadResult struct {
	receipt   receipt.Receipt
	err       error
	items     int // received, repeated ones included
	firstItem time.Duration
}

// one makes one request, and compares the answer with the request if all items have the
// form of the echo handler's.
func (l *load) one(ctx context.Context) loadResult {
	ctx, cancel := withTimeout(ctx, l.timeout)
	defer cancel()
	var recorder receipt.Recorder
	req := l.request
	req.Trace = recorder.Trace()
	if l.out != nil {
		req.Trace = req.Trace.Then(l.out.trace(ctx).Locked(&l.mu))
	}
	var r loadResult
	var answer strings.Builder
	echo := true
	began := time.Now()
	for item, err := range l.router.Do(ctx, req) {
		if err != nil {
			r.err = err
			break
		}
		if r.items++; r.items == 1 {
			r.firstItem = time.Since(began)
		}
		if item.Index == 0 {
			answer.Reset() // the attempt starts from the first item
		}
		echo = echo && isEcho(item)
		answer.WriteString(rawItem(item))
	}
	r.receipt = recorder.Receipt()
	if r.err == nil && echo && answer.String() != l.text {
		r.err = fmt.Errorf("%w: request %s: got %.60q, want %.60q", errWrongAnswer, r.receipt.Request, answer.String(), l.text)
	}
	if l.out != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.out.done(ctx, r.receipt, r.err)
	}
	return r
}

func isEcho(i router.Item) bool {
	_, ok := stream.Echoed(i.Annotated)
	return ok && (i.Peer.Engine == "" || i.Peer.Engine == backend.Echo)
}
