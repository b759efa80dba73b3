package router

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// slowStore is slow with each report.
type slowStore struct {
	*told
	takes time.Duration

	mu        sync.Mutex
	published []discovery.Report
	at        []time.Time // when each was begun
}

func (s *slowStore) Report(ctx context.Context, r discovery.Report) error {
	s.mu.Lock()
	s.published = append(s.published, r)
	s.at = append(s.at, time.Now())
	s.mu.Unlock()
	return pause(ctx, s.takes)
}

// A slow store does not hold up other reports for long, and reports that have ended
// are not published.
func TestReportsArePublishedTogether(t *testing.T) {
	const n = 40
	for takes, want := range map[time.Duration]int{
		time.Second:             n, // in three rounds, within the cooldown
		1900 * time.Millisecond: 2 * maxPublishing,
	} {
		t.Run(fmt.Sprint(takes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &slowStore{told: newTold(), takes: takes}
				r := start(t, Config{Source: newListing(instances(n)...), Reports: store, Cooldown: 3 * time.Second})
				synctest.Wait()
				for i := range n {
					r.ReportDown(discovery.InstanceID(i+1), stream.Failed)
				}
				sleep(time.Minute)
				if len(store.published) != want {
					t.Errorf("%d of %d reports were published, want %d", len(store.published), n, want)
				}
				for i, report := range store.published {
					if !report.Until.After(store.at[i]) || report.Until.Sub(report.Since) != 3*time.Second {
						t.Errorf("a report of %v until %v was published at %v", report.Since, report.Until, store.at[i])
					}
				}
			})
		})
	}
}

// Breaks due to this client's own bounds or machine are not published.
func TestWhatIsNotShared(t *testing.T) {
	for name, tt := range map[string]struct {
		b    stream.Break
		down bool // for this router
	}{
		"own bound":    {stream.Break{Kind: stream.Stalled, NoShare: true}, true},
		"sound server": {stream.Break{Kind: stream.Failed, NoReport: true}, false},
		"own trouble":  {stream.Break{Kind: stream.Local}, false},
		"own pause":    {stream.Break{Kind: stream.Stalled, Paused: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reports := &counting{Reports: newTold()}
				client := &servers{by: map[string]server{"server2": whole}}
				client.by["server1"] = func(context.Context, stream.Request, func(string) bool) error {
					client.by["server1"] = whole
					return &tt.b
				}
				r := start(t, Config{Source: newListing(instances(2)...), Client: client, Reports: reports})
				if _, err := ask(t.Context(), r, hello()); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				if reports.n.Load() != 0 {
					t.Error("it was reported")
				}
				if down := len(r.Tiers().Down) > 0; down != tt.down {
					t.Errorf("down is %v", down)
				}
			})
		})
	}
}
