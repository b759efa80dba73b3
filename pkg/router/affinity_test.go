package router

import (
	"slices"
	"strconv"
	"testing"
)

// keyed picks for each of n keys and returns who was picked.
func keyed(avail []*Peer, n int) []string {
	picked := make([]string, n)
	for k := range n {
		picked[k] = Affinity().Pick(Choice{Key: "session " + strconv.Itoa(k)}, avail).Name
	}
	return picked
}

// A key goes to the same instance each time, and keys are spread evenly, whatever the ids.
func TestAffinitySpreads(t *testing.T) {
	for _, n := range []int{1, 2, 10, 32, 33, 500} {
		avail := still(nil, n).Tiers().Avail
		const keys = 20_000
		first := keyed(avail, keys)
		if again := keyed(avail, keys); !slices.Equal(first, again) {
			t.Errorf("%d instances: keys moved", n)
		}
		load := map[string]int{}
		for _, name := range first {
			load[name]++
		}
		most := 0
		for _, l := range load {
			most = max(most, l)
		}
		if len(load) != n || most > 3*keys/n {
			t.Errorf("%d instances: %d of them have keys, one %d, want all, and %d on average", n, len(load), most, keys/n)
		}
	}
}

// When an instance leaves, only its keys move as long as there are few, and few others when
// there are many; and they go to many others.
func TestAffinityLeaves(t *testing.T) {
	for n, other := range map[int]int{10: 0, 200: 2000 / 10} {
		avail := still(nil, n).Tiers().Avail
		const keys = 2000
		before := keyed(avail, keys)
		gone := avail[n/2]
		after := keyed(slices.DeleteFunc(slices.Clone(avail), func(p *Peer) bool { return p == gone }), keys)
		moved := 0
		heirs := map[string]bool{}
		for k := range keys {
			switch {
			case before[k] == gone.Name:
				heirs[after[k]] = true
			case before[k] != after[k]:
				moved++
			}
		}
		if moved > other {
			t.Errorf("%d instances: %d keys of others moved, want %d at most", n, moved, other)
		}
		if len(heirs) < 4 {
			t.Errorf("%d instances: what one left went to %d others", n, len(heirs))
		}
	}
}

// An instance that is full passes keys on to the next, and a key without one goes anywhere.
func TestAffinityBoundsLoad(t *testing.T) {
	avail := still(nil, 4).Tiers().Avail
	c := Choice{Key: "one session"}
	first := Affinity().Pick(c, avail)
	for range 3 { // 3 <= 1.25 * 3/4 + 2 does not hold
		first.streams.Add(1)
	}
	second := Affinity().Pick(c, avail)
	if second == first {
		t.Error("a full instance was picked")
	}
	if again := Affinity().Pick(c, avail); again != second {
		t.Error("the next in order is another each time")
	}
	for _, p := range avail {
		if p != first {
			p.streams.Add(3) // all alike: nobody is full
		}
	}
	if Affinity().Pick(c, avail) != first {
		t.Error("a loaded instance was not picked though all are")
	}
	if picked := count(Affinity(), avail, 1000); len(picked) != 4 {
		t.Errorf("without a key %v were picked", picked)
	}
}
