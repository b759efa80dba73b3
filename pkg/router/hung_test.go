package router

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// A server that hangs comes back from its cooldown again and again, beside two
// that are sound. Requests must go on at their pace: in every second at least
// half as many complete as in the median one.
func TestHungServerAmongThree(t *testing.T) {
	const (
		seconds = 40
		takes   = 20 * time.Millisecond
		rate    = 1000 // a second, as many as 20 callers make who ask again at once
	)
	sound := after(takes, whole)
	for name, run := range map[string]func(ctx context.Context, one func()){
		"callers that wait for their answers": func(ctx context.Context, one func()) {
			var callers sync.WaitGroup
			for range int(rate * takes / time.Second) {
				callers.Go(func() {
					for ctx.Err() == nil {
						one()
					}
				})
			}
			callers.Wait()
		},
		"callers that come whatever happens": func(ctx context.Context, one func()) {
			var callers sync.WaitGroup
			for ctx.Err() == nil {
				callers.Go(one)
				time.Sleep(time.Second / rate)
			}
			callers.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := &servers{by: map[string]server{"server1": hung, "server2": sound, "server3": sound}}
				r := start(t, Config{Source: newListing(instances(3)...), Client: client, Picker: Random()})
				synctest.Wait()
				// The first cooldown begins here: what the first hang costs is
				// the requests of owingLimit, another matter.
				r.ReportDown(1, stream.Unresponsive)
				var mu sync.Mutex
				done := make([]int, seconds)
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), seconds*time.Second)
				defer cancel()
				run(ctx, func() {
					if _, err := ask(t.Context(), r, hello()); err != nil {
						t.Error(err)
					}
					mu.Lock()
					defer mu.Unlock()
					if second := int(time.Since(began) / time.Second); second < seconds {
						done[second]++
					}
				})
				t.Logf("requests a second: %v", done)
				sorted := slices.Sorted(slices.Values(done))
				if least, median := sorted[0], sorted[seconds/2]; least < median/2 || median < rate/2 {
					t.Errorf("the least second has %d, the median %d", least, median)
				}
			})
		})
	}
}

// A server that begins to hang delays the requests of a quarter of a second.
func TestServerBeginsToHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sound := after(time.Millisecond, whole)
		client := &servers{by: map[string]server{"server1": hung, "server2": sound, "server3": sound}}
		r := start(t, Config{Source: newListing(instances(3)...), Client: client, Picker: RoundRobin()})
		var callers sync.WaitGroup
		slow := 0
		var mu sync.Mutex
		for range 2000 { // in two seconds
			callers.Go(func() {
				began := time.Now()
				if _, err := ask(t.Context(), r, hello()); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if time.Since(began) > time.Second {
					slow++
				}
			})
			time.Sleep(time.Millisecond)
		}
		callers.Wait()
		if slow == 0 || slow > 84 {
			t.Errorf("%d of 2,000 requests took over a second, want those of 250 ms: a third of 250", slow)
		}
	})
}
