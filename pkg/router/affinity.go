package router

import (
	"math/bits"
	"math/rand/v2"
)

const (
	// affinityWindow is how many instances a key chooses among. A key ranks so many by a
	// hash of its own (rendezvous hashing: Thaler and Ravishankar, "Using Name-Based
	// Mappings to Increase Hit Rates"), so that what one leaves behind goes to many others,
	// and not to one neighbour. With more instances than that the key looks at a part of
	// them, so that choosing takes the same time for any number; where the part begins
	// moves by one at most when one joins or leaves, which moves one key of sixteen.
	affinityWindow = 32
	// An instance is full for affinity with more than affinityLoad times the mean of streams,
	// plus affinitySlack (consistent hashing with bounded loads: Mirrokni, Thorup and
	// Zadimoghaddam). The slack lets a quiet service keep to its instances.
	affinityLoad  = 1.25
	affinitySlack = 2
)

// Affinity returns a picker that sends requests with the same [Request.Key] to the same
// instance, which may have something cached for them. While that one is out, or has more
// streams than 1.25 times the mean plus 2, they go to the next in an order of their own. A
// request without a key goes to any instance. Routers that do not know of each other agree.
func Affinity() Picker { return affinity{} }

type affinity struct{}

func (affinity) Pick(c Choice, avail []*Peer) *Peer {
	if c.Key == "" {
		return avail[rand.IntN(len(avail))]
	}
	key := hashOf(c.Key)
	n := min(len(avail), affinityWindow)
	first := 0
	if len(avail) > n {
		hi, _ := bits.Mul64(key, uint64(len(avail)))
		first = int(hi)
	}
	streams := int32(0)
	for i := range n {
		streams += avail[(first+i)%len(avail)].streams.Load()
	}
	full := affinityLoad*float64(streams)/float64(n) + affinitySlack
	var best, fullest *Peer // the best of those that are not full, and of all
	var bestRank, fullestRank uint64
	for i := range n {
		p := avail[(first+i)%len(avail)]
		rank := mixBits(key ^ mixBits(uint64(p.ID)))
		if fullest == nil || rank > fullestRank {
			fullest, fullestRank = p, rank
		}
		if float64(p.streams.Load()) <= full && (best == nil || rank > bestRank) {
			best, bestRank = p, rank
		}
	}
	if best == nil {
		return fullest
	}
	return best
}

// hashOf returns the FNV-1a hash of a key, with its bits mixed: of keys that differ in their
// last byte alone it differs in few.
func hashOf(key string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	return mixBits(h)
}

// mixBits is the finalizer of SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom
// Number Generators"): each bit of x changes about half of the result's.
func mixBits(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
