package routertest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/router/routertest"
	"github.com/request-migration/migrate/pkg/stream"
)

// A program's answer survives an instance that breaks after two items.
func Example() {
	client := &routertest.Client{Plays: map[string][]routertest.Play{
		"a": {{Items: routertest.Texts("one", "two"), Err: stream.Truncated}},
		"b": {{Items: routertest.Texts("one", "two", "three")}},
	}}
	r := router.New(router.Config{Source: routertest.Source("a", "b"), Client: client, Picker: routertest.First()})
	defer r.Close()
	for item, err := range r.Do(context.Background(), router.Request{Data: stream.String("count")}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		text, _ := item.Text()
		fmt.Println(text, "from", item.Peer.Name)
	}
	for _, call := range client.Calls() {
		fmt.Println(call.Instance.Name, "was asked from", call.Request.From)
	}
	// Output:
	// one from a
	// two from a
	// three from b
	// a was asked from 0
	// b was asked from 2
}

// Plays come one after another, the last one again and again; time passes as told.
func TestPlays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &routertest.Client{Plays: map[string][]routertest.Play{
			"a": {{Err: stream.Reset}, {Items: routertest.Texts("x", "y"), Every: time.Second}},
		}}
		r := router.New(router.Config{Source: routertest.Source("a", "b"), Client: client, Picker: routertest.First()})
		defer r.Close()
		do := func(ctx context.Context) (n int, last error) {
			for _, err := range r.Do(ctx, router.Request{Data: stream.String("")}) {
				if last = err; err == nil {
					n++
				}
			}
			return n, last
		}
		if n, err := do(t.Context()); n != 0 || !errors.Is(err, stream.Reset) || !errors.Is(err, stream.Unreachable) {
			t.Errorf("at first: %d items, %v", n, err)
		}
		time.Sleep(router.DefaultCooldown)
		synctest.Wait()
		for range 2 {
			begin := time.Now()
			if n, err := do(t.Context()); n != 2 || err != nil || time.Since(begin) != 3*time.Second {
				t.Errorf("then: %d items after %v, %v", n, time.Since(begin), err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if n, err := do(ctx); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with too little time: %d items, %v", n, err)
		}
	})
}
