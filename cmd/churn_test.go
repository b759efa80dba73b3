//go:build unix

package cmd_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/file"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
)

const (
	churnServers = 10
	churnCallers = 1000
	// churnGrowth is what a client may hold more after a churn than before: a
	// few words for each of its requests would already be more.
	churnGrowth = 1 << 20
)

// TestChurn keeps 1,000 requests running against ten server processes, of which
// one is killed every second and another one takes its place. Every answer must
// be exact; and once all is quiet, neither the client, which is this process,
// nor a server that went through it may hold more than before. It kills for 3 s,
// or for as long as the variable CHURN says.
//
//nolint:paralleltest // it counts the goroutines of this process
func TestChurn(t *testing.T) {
	lasts := 3 * time.Second
	if s := os.Getenv("CHURN"); s != "" {
		var err error
		if lasts, err = time.ParseDuration(s); err != nil {
			t.Fatalf("CHURN: %v", err)
		}
	}
	w := newWorld(t)
	serve := func(n int) *process {
		return w.serve(t, fmt.Sprintf("server%d", n), "--delay", "10ms", "--metrics-listen", "127.0.0.1:0")
	}
	fleet := make([]*process, churnServers)
	for i := range fleet {
		fleet[i] = serve(i)
	}
	c := newChurn(t, w)

	// What is there once, however many requests there are, is there now.
	if err := c.load(t.Context(), func() bool { return false }); err != nil {
		t.Fatal(err)
	}
	goroutines, memory := c.atRest(t)

	var over atomic.Bool
	loaded := make(chan error, 1)
	go func() { loaded <- c.load(t.Context(), func() bool { return !over.Load() }) }()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for n, end := len(fleet), time.Now().Add(lasts); time.Now().Before(end); n++ {
		<-ticker.C
		fleet[0].kill()
		fleet = append(fleet[1:], serve(n))
	}
	over.Store(true)
	if err := <-loaded; err != nil {
		t.Fatal(err)
	}
	goroutinesAfter, memoryAfter := c.atRest(t)

	if goroutinesAfter > goroutines || memoryAfter > memory+churnGrowth {
		t.Errorf("the client has %d goroutines and %d kB, it had %d and %d kB before",
			goroutinesAfter, memoryAfter>>10, goroutines, memory>>10)
	}
	// A server may yet have to hear that a connection is closed.
	fresh, deadline := serverGoroutines(t, serve(-1)), time.Now().Add(patience)
	for used := ""; used != fresh; used = serverGoroutines(t, fleet[0]) {
		if time.Now().After(deadline) {
			t.Fatalf("a server that was used has %s goroutines, a fresh one %s", used, fresh)
		}
	}
	if len(c.gaps) == 0 {
		t.Error("no request was migrated")
	}
	slices.Sort(c.gaps)
	quantile := func(q float64) float64 { return c.gaps[int(q*float64(len(c.gaps)-1))] }
	t.Logf("%d requests, %d of them migrated; gap p50 %.1f ms, p99 %.1f ms, max %.1f ms; client %d kB and %d goroutines, before %d kB and %d",
		c.requests, c.migrated, quantile(0.5), quantile(0.99), quantile(1), memoryAfter>>10, goroutinesAfter, memory>>10, goroutines)
}

// churn is the client of [TestChurn].
type churn struct {
	router *router.Router

	mu       sync.Mutex // guards what follows
	requests int
	migrated int
	gaps     []float64 // in milliseconds
}

func newChurn(t *testing.T, w *world) *churn {
	t.Helper()
	store, err := file.Open(file.Config{Dir: w.kv})
	if err != nil {
		t.Fatal(err)
	}
	registry := discovery.NewRegistry(store, nil)
	endpoint := discovery.Endpoint{Namespace: "dynamo", Component: "backend", Name: "generate"}
	client := &stream.Client{IdleTimeout: 100 * time.Millisecond} // so that it is at rest soon
	c := &churn{gaps: make([]float64, 0, 1<<17)}
	c.router = router.New(router.Config{
		Endpoint: endpoint, Client: client, Resume: true, Reports: registry, Wait: patience,
		Source: func(ctx context.Context) iter.Seq2[discovery.Instances, error] {
			return registry.Watch(ctx, endpoint)
		},
	})
	t.Cleanup(func() {
		c.router.Close()
		client.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// load lets each caller make one request after the other, until again says no.
func (c *churn) load(ctx context.Context, again func() bool) error {
	failed := make(chan error, churnCallers)
	for range churnCallers {
		go func() {
			for {
				err := c.ask(ctx)
				if err != nil || !again() {
					failed <- err
					return
				}
			}
		}()
	}
	var err error
	for range churnCallers {
		if e := <-failed; e != nil {
			err = e
		}
	}
	return err
}

// ask makes a request and checks the answer, item by item.
func (c *churn) ask(ctx context.Context) error {
	var recorder router.Recorder
	next := 0
	for item, err := range c.router.Do(router.WithTrace(ctx, recorder.Trace()), router.Request{Data: stream.String(fox)}) {
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

// atRest waits until all connections are closed, and returns how many goroutines
// this process has, and how many bytes it holds.
func (c *churn) atRest(t *testing.T) (goroutines int, memory uint64) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		var all strings.Builder
		if err := pprof.Lookup("goroutine").WriteTo(&all, 1); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(all.String(), "/pkg/stream.") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("connections are open after %v:\n%s", patience, all.String())
		}
		runtime.Gosched()
	}
	runtime.GC()
	runtime.GC() // what pools held at the first is free at the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return runtime.NumGoroutine(), m.HeapAlloc + m.StackInuse
}

// serverGoroutines returns how many goroutines a server has, by its metrics.
func serverGoroutines(t *testing.T, p *process) string {
	t.Helper()
	return regexp.MustCompile(`(?m)^go_goroutines (\d+)$`).FindStringSubmatch(scrape(t, metricsURL(t, p)))[1]
}
