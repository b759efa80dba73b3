package router

import (
	"fmt"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/internal/kept"
	"github.com/request-migration/migrate/pkg/stream"
)

// DefaultMaxPrefix is the default of [Config.MaxPrefix]: some 300,000 tokens of a
// language model, one an item.
const DefaultMaxPrefix = 4 << 20

// A Way is how an instance carries on an answer of which the caller has a part.
type Way string

// The ways to carry an answer on.
const (
	// WayRestart: from the first item, since the caller has nothing, or since
	// [Config.Restart] wants it.
	WayRestart Way = "restart"
	// WayIndex: from the item that the caller lacks, given by its index.
	WayIndex Way = "index"
	// WayPrefix: behind the items that the caller has, which the instance is given.
	WayPrefix Way = "prefix"
	// WayReplay: from the first item. The router holds back what the caller has while
	// it compares it.
	WayReplay Way = "replay"
)

// carry is what a request knows about the answer that the caller has begun to get: what
// it takes to carry that on elsewhere.
type carry struct {
	next int        // index of the first item that the caller lacks
	kept kept.Items // the items before it, if it is whole
	// whole says that kept holds every item that the caller has.
	whole bool
	// joined says that indexes have come to mean something else than at the instances
	// that resume by index: an instance went on from a prefix, or divided the answer
	// otherwise. That stays.
	joined bool
	// foreign says that some items came from an instance that does not resume by index,
	// and have not been compared with the answer of one that does.
	foreign bool
	// replayOnly says that an instance could not go on from where it was asked to.
	replayOnly bool
	dropped    bool // it has become too long to be kept
	diverged   int  // answers that differed
	// bare says that the caller came back with an index, and without the items before it.
	bare bool
}

// comesBack notes that the caller comes back for the items behind those that it got
// earlier: from, and which, if it gives them. It does not say who sent them, so that
// they are compared before an index is relied on, unless every instance resumes by
// index.
func (k *carry) comesBack(from int, items []stream.Annotated, allIndex bool, limit int) {
	k.next = max(from, len(items))
	k.bare = from > 0 && len(items) == 0
	if len(items) > 0 {
		k.whole, k.foreign = true, !allIndex
	}
	for _, a := range items {
		k.keep(a, limit)
	}
}

// begins notes that the caller gets its first item while every listed instance resumes
// by index, or not. Where all do, nobody needs the items.
func (k *carry) begins(allIndex bool) { k.whole = !allIndex }

// delivers notes the next item that the caller gets. It comes from p, which was asked in
// that way, in the replay r if that is one.
func (k *carry) delivers(a stream.Annotated, p *Peer, way Way, r *replay, limit int) {
	k.next++
	byIndex := resumesByIndex(p)
	switch way {
	case WayPrefix:
		k.joined = true
	case WayReplay:
		k.joined = k.joined || !r.undivided()
		k.foreign = !byIndex
	case WayIndex, WayRestart:
		k.foreign = k.foreign || !byIndex
	}
	k.keep(a, limit)
}

// keep keeps an item, unless the answer is too long.
func (k *carry) keep(a stream.Annotated, limit int) {
	if !k.whole {
		return
	}
	k.kept.Add(a)
	if k.kept.Size() > limit {
		k.kept, k.whole, k.dropped = kept.Items{}, false, true
	}
}

// way returns how p can carry the answer on; "" if it cannot.
func (k *carry) way(p *Peer, data int) Way {
	switch {
	case k.next == 0:
		return WayRestart
	case k.whole && k.replayOnly:
		return WayReplay
	case resumesByIndex(p) && !k.joined && !k.foreign:
		return WayIndex
	case !k.whole:
		return ""
	case p.Resume == discovery.ResumePrefix && k.fits(p, data):
		return WayPrefix
	}
	return WayReplay
}

// ways returns the ways that may be open, the best first.
func (k *carry) ways() []Way {
	all := []Way{WayIndex, WayPrefix, WayReplay}
	switch {
	case !k.whole:
		return all[:1]
	case k.replayOnly:
		return all[2:]
	case k.joined || k.foreign:
		return all[1:]
	}
	return all
}

// whyNot returns why none of the n instances that are left carries the answer on; with
// none of them an answer that began anew was the last that was seen.
func (k *carry) whyNot(n int) string {
	switch {
	case n == 0:
		return "an answer that began anew differs from what was delivered"
	case k.whole:
		return fmt.Sprintf("the %d instances that are left begin at the first item only, and refuse", n)
	case k.dropped:
		return fmt.Sprintf("the %d instances that are left do not resume by index, and the answer is too long to be kept", n)
	case k.bare:
		return fmt.Sprintf("the %d instances that are left do not resume by index, and the request does not give the items before it", n)
	}
	return fmt.Sprintf("the %d instances that are left do not resume by index, as all did when it began, so that it was not kept", n)
}

// besidePrefix is how many bytes of a request's line are reserved for all but its data
// and its prefix: the headers, escaped, are the most.
const besidePrefix = 64 << 10

// fits reports whether p takes a request with that many bytes of data and the prefix.
func (k *carry) fits(p *Peer, data int) bool {
	limit := p.MaxRequest
	if limit == 0 {
		limit = stream.MaxLine
	}
	return data+k.kept.Size()+besidePrefix <= limit
}

// resumesByIndex reports whether p can begin at any item, as far as its record says. If
// it does not say, p is asked.
func resumesByIndex(p *Peer) bool {
	return p.Resume == discovery.ResumeIndex || p.Resume == ""
}

// resumes reports whether all of peers resume by index for certain, and whether some
// resume otherwise than others.
func resumes(peers []*Peer) (allIndex, mixed bool) {
	allIndex = len(peers) > 0
	for _, p := range peers {
		allIndex = allIndex && p.Resume == discovery.ResumeIndex
		mixed = mixed || p.Resume != peers[0].Resume
	}
	return allIndex, mixed
}
