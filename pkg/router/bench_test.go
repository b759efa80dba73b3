package router

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

func BenchmarkPick(b *testing.B) {
	for name, picker := range pickers() {
		for _, n := range []int{10, 1_000, 100_000} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				r := still(picker, n)
				ctx := b.Context()
				b.ReportAllocs()
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					c := &call{r: r, attempts: 1}
					c.req.Key = "a session" // for affinity
					for pb.Next() {
						if _, err := c.pick(ctx); err != nil {
							b.Fatal(err)
						}
					}
				})
			})
		}
	}
}

func BenchmarkReport(b *testing.B) {
	r := still(Random(), 10_000)
	source := r.Tiers().Source
	at := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		// Each is the only one down, as a rule.
		at = at.Add(time.Minute)
		r.tiers.reconcile(at)
		r.tiers.report(source[at.Unix()/60%10_000], stream.Failed, at)
	}
}

func BenchmarkSnapshot(b *testing.B) {
	r := still(Random(), 10_000)
	more := instances(10_001)
	sets := []discovery.Instances{{List: slices.Clone(more[:10_000])}, {List: more}}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		r.tiers.setSource(sets[i%2])
		i++
	}
}

// BenchmarkDo is what a router adds to a stream that costs nothing.
func BenchmarkDo(b *testing.B) {
	client := &servers{by: make(map[string]server)}
	for _, i := range instances(10) {
		client.by[i.Address] = whole
	}
	r := start(b, Config{Source: discovery.Static(instances(10)...), Client: client, Picker: Random()})
	req := hello()
	b.ReportAllocs()
	for b.Loop() {
		client.calls = client.calls[:0]
		for _, err := range r.Do(b.Context(), req) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkFailOneByOne is 5,000 instances of which every request breaks one,
// until all are down.
func BenchmarkFailOneByOne(b *testing.B) {
	const n = 5000
	all := instances(n)
	b.ReportAllocs()
	for b.Loop() {
		client := &servers{}
		r := start(b, Config{Source: discovery.Static(all...), Client: client, Picker: Random(), Attempts: n + 1, Cooldown: time.Hour})
		if _, err := ask(b.Context(), r, hello()); !errors.Is(err, ErrNoInstances) {
			b.Fatal(err)
		}
		if down := len(r.Tiers().Down); down != n || len(client.calls) != n {
			b.Fatalf("%d are down after %d calls, want %d", down, len(client.calls), n)
		}
		r.Close()
	}
}

// BenchmarkAllOverloaded is a request to 5,000 instances that are all overloaded.
func BenchmarkAllOverloaded(b *testing.B) {
	client := &servers{by: make(map[string]server)}
	for _, i := range instances(5000) {
		client.by[i.Address] = breaking(stream.Overloaded, 0)
	}
	r := start(b, Config{Source: discovery.Static(instances(5000)...), Client: client, Picker: Random()})
	b.ReportAllocs()
	for b.Loop() {
		client.calls = client.calls[:0]
		if _, err := ask(b.Context(), r, hello()); !errors.Is(err, ErrOverloaded) {
			b.Fatal(err)
		}
	}
}
