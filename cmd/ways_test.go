//go:build unix

package cmd_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/file"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
)

const (
	wayCallers = 200
	wayLines   = 40
)

// TestWays keeps 200 requests running against programs behind six servers, two that
// resume by index, two by prefix and two that begin anew, one of these in items of its
// own. Every second some of the six are killed and replaced. Every answer must be exact. It
// kills for 3 s, or for as long as the variable CHURN says.
//
//nolint:paralleltest // hundreds of programs would slow other tests down
func TestWays(t *testing.T) {
	lasts := churnTime(t)
	w := newWorld(t)
	program := filepath.Join(w.dir, "slowlines")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../testdata/slowlines").CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	started := 0
	serve := func(way string, flags ...string) *process {
		started++
		args := append([]string{"--max-streams", "1000"}, flags...)
		args = append(args, "--", program, "-lines", fmt.Sprint(wayLines), "-by", way)
		return w.serve(t, fmt.Sprintf("%s%d", way, started), args...)
	}
	kinds := []func() *process{
		func() *process { return serve("index", "--resume-by", "index") },
		func() *process { return serve("prefix", "--resume-by", "prefix") },
		func() *process { return serve("lines") },
		func() *process { return serve("chunks", "--items", "chunks") },
	}
	kinds = append(kinds, kinds[:2]...)
	fleet := make([]*process, len(kinds))
	for n, start := range kinds {
		fleet[n] = start()
	}

	store, err := file.Open(file.Config{Dir: w.kv})
	if err != nil {
		t.Fatal(err)
	}
	registry := discovery.NewRegistry(store, nil)
	client := &stream.Client{}
	ways := &wayCounter{seen: make(map[router.Way]int)}
	r := router.New(router.Config{
		Endpoint: discovery.Endpoint{Namespace: "dynamo", Component: "backend", Name: "generate"},
		Client:   router.StreamClient(client), Source: registry, Reports: registry, Wait: patience, WaitRestore: patience,
		Attempts: 100, // a request that lasts 2 s may meet many kills
		Trace:    func() *router.Trace { return &router.Trace{Chosen: ways.chosen} },
	})
	t.Cleanup(func() {
		r.Close()
		client.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, enough := context.WithCancel(t.Context())
	defer enough()
	var callers sync.WaitGroup
	for caller := range wayCallers {
		callers.Go(func() {
			for n := 0; n == 0 || ctx.Err() == nil; n++ {
				if err := askWay(t.Context(), r, fmt.Sprintf("%d-%d", caller, n)); err != nil {
					t.Errorf("request %d of caller %d: %v", n, caller, err)
					return
				}
			}
		})
	}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for n, end := 0, time.Now().Add(lasts); time.Now().Before(end); n++ {
		<-ticker.C
		killed := wayKills(n, len(fleet))
		for _, n := range killed {
			fleet[n].kill()
		}
		for _, n := range killed {
			fleet[n] = kinds[n]()
		}
	}
	enough()
	callers.Wait()
	for _, way := range []router.Way{router.WayIndex, router.WayPrefix, router.WayReplay} {
		if ways.seen[way] == 0 {
			t.Errorf("no answer was carried on by %s: %v", way, ways.seen)
		}
	}
	t.Logf("carried on: %v", ways.seen)
}

// wayKills returns which of the fleet are killed at once, the nth time: first one that
// resumes by index, then all that resume by prefix and one that begins anew, so that every
// way is taken; then any.
func wayKills(n, fleet int) []int {
	switch n {
	case 0:
		return []int{0}
	case 1:
		return []int{1, 5, 2}
	}
	return rand.Perm(fleet)[:1+rand.IntN(fleet-1)]
}

// askWay makes a request and checks the answer as it comes.
func askWay(ctx context.Context, r *router.Router, message string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	var want strings.Builder
	for n := range wayLines {
		fmt.Fprintf(&want, "line %d of %s\n", n, message)
	}
	left := want.String()
	for item, err := range r.Do(ctx, router.Request{Data: stream.String(message)}) {
		if err != nil {
			return err
		}
		text, _ := item.Text()
		var ok bool
		if left, ok = strings.CutPrefix(left, text); !ok || text == "" {
			return fmt.Errorf("item %d is %q, where %.40q is due", item.Index, text, left)
		}
	}
	if left != "" {
		return fmt.Errorf("an answer that lacks %q was taken for a whole one", left)
	}
	return nil
}

// wayCounter counts the ways in which answers are carried on.
type wayCounter struct {
	mu   sync.Mutex
	seen map[router.Way]int
}

func (c *wayCounter) chosen(e router.ChosenEvent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[e.Way]++
}
