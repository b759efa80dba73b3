package router

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// pickers returns every picker there is, by its name.
func pickers() map[string]Picker {
	return map[string]Picker{"random": Random(), "round-robin": RoundRobin(), "least-loaded": LeastLoaded(), "affinity": Affinity()}
}

// still returns a router that has n instances and no goroutines.
func still(picker Picker, n int) *Router {
	r := &Router{cfg: Config{Picker: picker, Endpoint: testEndpoint}, ctx: context.Background()}
	r.tiers.cooldown, r.tiers.routable = DefaultCooldown, discovery.Instance.Routable
	r.tiers.init(false)
	r.tiers.setSource(discovery.Instances{List: instances(n)})
	return r
}

// count picks n times and returns how often each instance was picked.
func count(p Picker, avail []*Peer, n int) map[string]int {
	picked := make(map[string]int)
	for range n {
		picked[p.Pick(Choice{}, avail).Name]++
	}
	return picked
}

func TestRandom(t *testing.T) {
	picked := count(Random(), still(nil, 10).Tiers().Avail, 100_000)
	// The standard deviation is 95, so that 1,000 off is more than ten of them.
	for i := range 10 {
		if n := picked[instance(i+1).Name]; n < 9_000 || n > 11_000 {
			t.Errorf("%s was picked %d times of 100,000", instance(i+1).Name, n)
		}
	}
}

func TestRoundRobin(t *testing.T) {
	avail := still(nil, 4).Tiers().Avail
	p := RoundRobin()
	var got []string
	for range 6 {
		got = append(got, p.Pick(Choice{}, avail).Name)
	}
	if got := strings.Join(got, " "); got != "server1 server2 server3 server4 server1 server2" {
		t.Errorf("picked %s", got)
	}
	for name, n := range count(p, avail[:3], 300) {
		if n != 100 {
			t.Errorf("of three, %s was picked %d times of 300", name, n)
		}
	}
}

func TestLeastLoaded(t *testing.T) {
	p := LeastLoaded()
	avail := still(nil, 3).Tiers().Avail
	if got := p.Pick(Choice{}, avail[:1]); got != avail[0] {
		t.Errorf("of one: %v", got)
	}
	avail[0].streams.Store(2)
	avail[1].streams.Store(1)
	// Server3 wins both pairs that it is in, server2 one, server1 none.
	picked := count(p, avail, 30_000)
	if n := picked["server3"]; n < 19_000 || n > 21_000 || picked["server1"] > 0 {
		t.Errorf("picked %v", picked)
	}
	avail[0].streams.Store(1)
	avail[2].streams.Store(1)
	for name, n := range count(p, avail, 30_000) {
		if n < 9_000 || n > 11_000 {
			t.Errorf("of equals, %s was picked %d times of 30,000", name, n)
		}
	}
}

// With every stream that runs, a server is picked less.
func TestLeastLoadedBalances(t *testing.T) {
	avail := still(nil, 100).Tiers().Avail
	p := LeastLoaded()
	for range 10_000 {
		p.Pick(Choice{}, avail).streams.Add(1)
	}
	for _, peer := range avail {
		// Random choice would leave one at 70 or 130 as a rule.
		if n := peer.Streams(); n < 90 || n > 110 {
			t.Errorf("%s has %d of 10,000 streams, 100 are its share", peer.Name, n)
		}
	}
}

// A request never gets an instance that it has tried, whatever the picker does.
func TestChooseExcludes(t *testing.T) {
	for name, picker := range pickers() {
		r := still(picker, 20)
		c := &call{r: r, attempts: 1, tried: make(map[identity]ending)}
		seen := make(map[discovery.InstanceID]bool)
		for range 20 {
			p, err := c.pick(t.Context())
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if seen[p.ID] {
				t.Fatalf("%s: %s a second time", name, p.Name)
			}
			seen[p.ID] = true
			c.tried[p.identity()] = ending{}
		}
		if p, err := c.pick(t.Context()); err == nil {
			t.Errorf("%s: %s after all were tried", name, p.Name)
		}
	}
}

// Choosing costs the same for any number of instances, also for a request that broke
// at one, and while instances are down.
func TestChoosingAllocatesNothing(t *testing.T) {
	for name, picker := range pickers() {
		for _, n := range []int{10, 100_000} {
			r := still(picker, n)
			p := r.Tiers().Source[3]
			r.tiers.report(p, stream.Failed, time.Now())
			c := &call{r: r, attempts: 1, tried: map[identity]ending{p.identity(): {}}}
			ctx := t.Context()
			allocs := testing.AllocsPerRun(1000, func() {
				if err := c.awaitSource(ctx); err != nil {
					t.Fatal(err)
				}
				if _, err := c.pick(ctx); err != nil {
					t.Fatal(err)
				}
			})
			if allocs != 0 {
				t.Errorf("%s of %d instances: %v allocations", name, n, allocs)
			}
		}
	}
}

// Pickers, reports, snapshots and readers at once, for the race detector.
func TestConcurrentUse(t *testing.T) {
	for _, picker := range pickers() {
		l := newListing(instances(5)...)
		client := &servers{by: map[string]server{
			"server1": whole, "server2": whole, "server3": breaking(stream.Failed, 2), "server4": breaking(stream.Overloaded, 0), "server5": whole,
		}}
		r := start(t, Config{Source: l, Client: client, Picker: picker, MaxCooldown: 1, Cooldown: 1})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 50 {
					if _, err := ask(t.Context(), r, hello()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Go(func() {
			for i := range 50 {
				l.list(instances(5 - i%2)...)
				r.ReportDown(1, stream.Failed)
				for _, p := range r.Tiers().Avail {
					_ = p.Streams()
				}
			}
		})
		wg.Wait()
		r.Close()
	}
}

// An instance takes one cache line, and shares it with no other.
func TestPeerIsOneCacheLine(t *testing.T) {
	if strconv.IntSize < 64 {
		return // pointers are shorter there, and so is the struct
	}
	if size := unsafe.Sizeof(Peer{}); size != 64 {
		t.Errorf("a Peer takes %d bytes", size)
	}
	for _, p := range still(Random(), 1000).Tiers().Source {
		if at := uintptr(unsafe.Pointer(p)); at%64 != 0 {
			t.Fatalf("a Peer is at %x", at)
		}
	}
}
