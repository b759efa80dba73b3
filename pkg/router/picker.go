package router

import (
	"math/rand/v2"
	"sync/atomic"
)

// A Picker chooses one of the available instances: [Random], [RoundRobin],
// [LeastLoaded], [Affinity], or a program's own. It must be safe for concurrent use. It is
// called once for nearly every attempt, so it should take the same short time for
// any number of instances, and allocate nothing.
type Picker interface {
	// Pick returns one of avail, which has at least one element, is sorted by id, and
	// must not be changed or kept. If the request cannot go to that one, because it has
	// been there or because another request is trying it, Pick is called again with the
	// same list, and once it repeats itself, with a list of those that are left. Nil says
	// that none of avail will do.
	Pick(c Choice, avail []*Peer) *Peer
}

// A Choice is what a [Picker] is told about the request for which it picks.
type Choice struct {
	// Key is [Request.Key].
	Key string
	// Attempt is the number of the attempt, from 1.
	Attempt int
	// Prefix says that the caller has items, and that instances which resume by prefix
	// are sent them.
	Prefix bool
}

// Random returns a picker that picks any instance, each with the same
// probability.
func Random() Picker { return random{} }

// RoundRobin returns a picker that picks one instance after the other. Routers
// that share it share its turns.
func RoundRobin() Picker { return &roundRobin{} }

// LeastLoaded returns a picker that draws two instances at random and picks the
// one at which fewer streams of its router run (Mitzenmacher, "The Power of Two
// Choices in Randomized Load Balancing").
func LeastLoaded() Picker { return leastLoaded{} }

type random struct{}

func (random) Pick(_ Choice, avail []*Peer) *Peer { return avail[rand.IntN(len(avail))] }

type roundRobin struct{ n atomic.Uint64 }

func (r *roundRobin) Pick(_ Choice, avail []*Peer) *Peer {
	return avail[(r.n.Add(1)-1)%uint64(len(avail))]
}

type leastLoaded struct{}

func (leastLoaded) Pick(_ Choice, avail []*Peer) *Peer {
	n := len(avail)
	i := rand.IntN(n)
	if n == 1 {
		return avail[i]
	}
	j := rand.IntN(n - 1) // one of the others
	if j >= i {
		j++
	}
	p, q := avail[i], avail[j]
	if q.streams.Load() < p.streams.Load() {
		return q
	}
	return p
}
