//go:build unix

package cmd_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/file"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/router/receipt"
	"github.com/request-migration/migrate/pkg/stream"
)

// churnResult is what the client of [TestChurn] prints.
type churnResult struct {
	Requests, Migrated int
	GapMS              struct{ P50, P99, Max float64 }
	Before, After      churnHolds
}

// churnHolds is what the client holds while it has no connection.
type churnHolds struct {
	Goroutines int
	// Memory is the bytes of objects. The stacks of goroutines that have ended don't
	// count: the runtime keeps them for others, more or fewer.
	Memory uint64
}

// churnClient is the main function of the client: a process of its own, so that
// nothing but the requests changes what it holds. It makes requests until stdin
// ends.
func churnClient(stdin io.Reader, stdout io.Writer) error {
	store, err := file.Open(file.Config{Dir: os.Getenv("DYN_FILE_KV")})
	if err != nil {
		return err
	}
	registry := discovery.NewRegistry(store, nil)
	endpoint := discovery.Endpoint{Namespace: "dynamo", Component: "backend", Name: "generate"}
	client := &stream.Client{IdleTimeout: 100 * time.Millisecond} // so that it has no connection soon
	c := &churn{gaps: make([]float64, 0, 1<<17)}
	c.router = router.New(router.Config{
		Endpoint: endpoint, Client: router.StreamClient(client), Source: registry, Reports: registry, Wait: patience,
	})
	result, err := c.run(stdin, stdout)
	c.router.Close()
	client.Close()
	if err := errors.Join(err, store.Close()); err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(result)
}

// churn is what the callers share.
type churn struct {
	router *router.Router

	mu       sync.Mutex // guards what follows
	requests int
	migrated int
	gaps     []float64 // in milliseconds
}

func (c *churn) run(stdin io.Reader, stdout io.Writer) (r churnResult, err error) {
	// This allocates whatever does not grow with the number of requests.
	if err := c.load(func() bool { return false }); err != nil {
		return r, err
	}
	if r.Before, err = atRest(); err != nil {
		return r, err
	}
	var enough atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, stdin) // any end will do
		enough.Store(true)
	}()
	if _, err := fmt.Fprintln(stdout, "ready"); err != nil {
		return r, err
	}
	if err := c.load(func() bool { return !enough.Load() }); err != nil {
		return r, err
	}
	if r.After, err = atRest(); err != nil {
		return r, err
	}
	r.Requests, r.Migrated = c.requests, c.migrated
	if len(c.gaps) > 0 {
		slices.Sort(c.gaps)
		quantile := func(q float64) float64 { return c.gaps[int(q*float64(len(c.gaps)-1))] }
		r.GapMS.P50, r.GapMS.P99, r.GapMS.Max = quantile(0.5), quantile(0.99), quantile(1)
	}
	return r, nil
}

// load lets each caller make one request after the other, until again says no.
func (c *churn) load(again func() bool) error {
	over := make(chan error, churnCallers)
	for range churnCallers {
		go func() {
			for {
				err := c.ask(context.Background())
				if err != nil || !again() {
					over <- err
					return
				}
			}
		}()
	}
	var err error
	for range churnCallers {
		if e := <-over; e != nil {
			err = e // one will do
		}
	}
	return err
}

// ask makes a request and checks the answer, item by item.
func (c *churn) ask(ctx context.Context) error {
	var recorder receipt.Recorder
	next := 0
	for item, err := range c.router.Do(ctx, router.Request{Data: stream.String(fox), Trace: recorder.Trace()}) {
		if err != nil {
			return err
		}
		text, _ := item.Text()
		if item.Index != next || next >= len(fox) || !strings.HasSuffix(text, "data: "+fox[next:next+1]) {
			return fmt.Errorf("item %d is %q with index %d", next, text, item.Index)
		}
		next++
	}
	if next != len(fox) {
		return errors.New("an answer that is not complete was taken for one")
	}
	gaps := recorder.Receipt().GapsMS
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests++
	if len(gaps) > 0 {
		c.migrated++
	}
	c.gaps = append(c.gaps, gaps...)
	return nil
}

// atRest waits until all connections are closed, and returns what is held then.
func atRest() (churnHolds, error) {
	for deadline := time.Now().Add(patience); ; runtime.Gosched() {
		var all strings.Builder
		if err := pprof.Lookup("goroutine").WriteTo(&all, 1); err != nil {
			return churnHolds{}, err
		}
		if !strings.Contains(all.String(), "/pkg/stream.") {
			break
		}
		if time.Now().After(deadline) {
			return churnHolds{}, fmt.Errorf("connections are open after %v:\n%s", patience, all.String())
		}
	}
	runtime.GC()
	runtime.GC() // what pools held at the first is free at the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return churnHolds{runtime.NumGoroutine(), m.HeapAlloc}, nil
}
