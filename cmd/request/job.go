package request

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/request-migration/migrate/cmd/internal/backend"
	"github.com/request-migration/migrate/cmd/internal/cli"
	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/router/receipt"
	"github.com/request-migration/migrate/pkg/stream"
)

// job is what the request command has to do. Everything in it has been checked.
type job struct {
	options
	cli.Common
	picker   router.Picker
	out      output // nil: only the summary
	backends []backend.Config
	text     string
}

// newRouter starts the router. stop ends it and its connections.
func (j *job) newRouter(store discovery.Store) (r *router.Router, stop func()) {
	client := &stream.Client{
		DialTimeout: j.dialTimeout, StartTimeout: j.startTimeout, StallTimeout: j.stallTimeout,
		ItemTimeout: j.itemTimeout, Logger: j.Logs.For("stream"),
	}
	registry := discovery.NewRegistry(store, j.Logs.For("discovery"))
	r = router.New(router.Config{
		Endpoint: j.Endpoint, Where: j.Where(), Client: router.StreamClient(client), Picker: j.picker, Source: registry, Reports: registry,
		Attempts: j.attempts, Restart: !j.resume, Cooldown: j.cooldown, MaxCooldown: j.maxCooldown,
		Wait: j.wait, WaitRestore: j.waitRestore, Logger: j.Logs.For("router"),
	})
	return r, func() {
		r.Close()
		client.Close()
	}
}

func (j *job) request() router.Request {
	return router.Request{Data: stream.String(j.text), Instance: j.instance}
}

// runEach makes the requests one after the other and prints each as it goes. It goes on
// after one that failed, and returns the first error.
func (j *job) runEach(ctx context.Context, r *router.Router) error {
	var failed error
	for range j.count {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := j.runOne(ctx, r)
		if failed == nil {
			failed = err
		}
		if j.out.failed() != nil {
			break
		}
	}
	return failed
}

func (j *job) runOne(ctx context.Context, r *router.Router) error {
	ctx, cancel := withTimeout(ctx, j.timeout)
	defer cancel()
	var recorder receipt.Recorder
	req := j.request()
	req.Trace = recorder.Trace().Then(j.out.trace(ctx))
	var failed error
	for _, err := range r.Do(ctx, req) {
		if err != nil {
			failed = err
		}
		if j.out.failed() != nil {
			break // nothing can be printed any more
		}
	}
	j.out.done(ctx, recorder.Receipt(), failed)
	if err := j.out.failed(); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return failed
}

// runMany makes the requests, several at a time, checks the answers, and prints a summary
// or, with --output json, each request as it goes.
func (j *job) runMany(ctx context.Context, cmd *cobra.Command, r *router.Router) error {
	l := &load{
		router: r, request: j.request(), text: j.text, timeout: j.timeout,
		count: j.count, concurrency: j.concurrency, out: j.out,
		progress: newProgress(cmd.ErrOrStderr(), j.count),
	}
	total := l.run(ctx)
	if j.output == outputSummary {
		if err := total.write(ctx, cmd.OutOrStdout()); err != nil {
			return err
		}
	} else if err := j.out.failed(); err != nil {
		return fmt.Errorf("writing the answers: %w", err)
	}
	if total.err == nil && total.requests < j.count {
		return context.Cause(ctx) // not all requests were made
	}
	return total.err
}

// withTimeout bounds a request; 0 is no bound.
func withTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within --timeout %v: %w", timeout, context.DeadlineExceeded))
}
