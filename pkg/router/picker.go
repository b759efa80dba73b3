package router

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
)

// A Picker chooses one of the available instances. It must be safe for
// concurrent use; it is called once for nearly every attempt, so it should take
// the same short time for any number of instances, and allocate nothing.
type Picker interface {
	// Pick returns one of avail, which has at least one element and must not
	// be changed or kept.
	Pick(avail []*Peer) *Peer
}

// The pickers' names, as [NewPicker] takes them.
const (
	Random      = "random"
	RoundRobin  = "round-robin"
	LeastLoaded = "least-loaded"
)

// PickerNames returns the names of all pickers.
func PickerNames() []string { return []string{Random, RoundRobin, LeastLoaded} }

// NewPicker returns a picker by its name: [Random] picks any instance,
// [RoundRobin] one after the other, [LeastLoaded] the one with fewer streams of
// two that it draws at random (Mitzenmacher, "The Power of Two Choices in
// Randomized Load Balancing").
func NewPicker(name string) (Picker, error) {
	switch name {
	case Random:
		return random{}, nil
	case RoundRobin:
		return &roundRobin{}, nil
	case LeastLoaded:
		return leastLoaded{}, nil
	}
	return nil, fmt.Errorf("unknown router %q: valid are %s", name, strings.Join(PickerNames(), ", "))
}

type random struct{}

func (random) Pick(avail []*Peer) *Peer { return avail[rand.IntN(len(avail))] }

type roundRobin struct{ n atomic.Uint64 }

func (r *roundRobin) Pick(avail []*Peer) *Peer {
	return avail[(r.n.Add(1)-1)%uint64(len(avail))]
}

type leastLoaded struct{}

func (leastLoaded) Pick(avail []*Peer) *Peer {
	n := len(avail)
	i := rand.IntN(n)
	if n == 1 {
		return avail[i]
	}
	j := rand.IntN(n - 1) // one of the others
	if j >= i {
		j++
	}
	if avail[j].streams.Load() < avail[i].streams.Load() {
		i = j
	}
	return avail[i]
}
