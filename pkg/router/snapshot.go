package router

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// Down is an instance that is out of instance_avail.
type Down struct {
	Instance discovery.Instance
	// Cause is the break that was reported.
	Cause        error
	Since, Until time.Time
}

// Tiers is the two tiers at one moment. It may be shared: do not change it.
type Tiers struct {
	// Source is instance_source, sorted by id: every instance that requests can
	// be sent to and that discovery lists.
	Source []*Peer
	// Avail is instance_avail: the source less the instances that are down or
	// that the reports of other clients keep out.
	Avail []*Peer
	// Spare holds the instances that only the reports of other clients keep out
	// of Avail. A request for which no other instance is left goes to one of them.
	Spare []*Peer
	// Lost holds the instances that discovery has lost together with most others,
	// and that have not said that they are draining. They are not in Source, and
	// are the last resort of a request.
	Lost []*Peer
	// Down holds this router's own reports whose cooldown has not passed, also
	// of instances that have left the source meanwhile.
	Down map[discovery.InstanceID]Down
	// ByOthers holds the reports of other clients that stand; of several about
	// one instance, the one that ends last.
	ByOthers map[discovery.InstanceID]discovery.Report
	// BackingOff is how many instances of Avail back off: they have refused a
	// request as overloaded, and are passed over for a while.
	BackingOff int
	// Unroutable holds the instances that discovery lists and requests cannot be sent
	// to, see [Config.Routable].
	Unroutable []discovery.Instance
	// Stale is nil while Source is current; else it says why discovery can't be
	// read.
	Stale error

	ready    []*Peer       // Avail less those that back off
	names    *nameIndex    // of Source
	allIndex bool          // all of Source resume by index
	mixed    bool          // some of Source resume otherwise than others
	able     *ableIndex    // of the lists
	listed   bool          // the source has been read at least once
	unasked  bool          // the reports of others have not been read yet
	replaced chan struct{} // closed when a newer one takes its place
}

// ableIndex holds, for each list that requests choose from, the instances that resume in
// a particular way. It is made for the first request that carries an answer on.
type ableIndex struct {
	once   sync.Once
	byStep map[Step]map[Way][]*Peer
}

// resuming returns those of peers, the list of t for a step, that can carry on in a way,
// as far as their records say. Every instance can replay.
func (t *Tiers) resuming(peers []*Peer, step Step, way Way) []*Peer {
	if way == WayReplay {
		return peers
	}
	t.able.once.Do(func() {
		t.able.byStep = make(map[Step]map[Way][]*Peer)
		for step, peers := range map[Step][]*Peer{StepAvail: t.ready, StepPassedOver: t.Avail, StepReported: t.Spare, StepLost: t.Lost} {
			able := make(map[Way][]*Peer)
			for _, p := range peers {
				switch {
				case resumesByIndex(p):
					able[WayIndex] = append(able[WayIndex], p)
				case p.Resume == discovery.ResumePrefix:
					able[WayPrefix] = append(able[WayPrefix], p)
				}
			}
			t.able.byStep[step] = able
		}
	})
	return t.able.byStep[step][way]
}

// nameIndex finds the instances of a source by name. It is made at the first
// search, and serves all tiers with that source.
type nameIndex struct {
	once   sync.Once
	byName map[string][]*Peer
}

// named returns the instances of the source that have a name.
func (t *Tiers) named(name string) []*Peer {
	t.names.once.Do(func() {
		t.names.byName = make(map[string][]*Peer, len(t.Source))
		for _, p := range t.Source {
			t.names.byName[p.Name] = append(t.names.byName[p.Name], p)
		}
	})
	return t.names.byName[name]
}

// byID returns the instance of the source that has an id, or nil.
func (t *Tiers) byID(id discovery.InstanceID) *Peer { return find(t.Source, id) }

// find returns the one of peers, sorted by id, that has an id, or nil.
func find(peers []*Peer, id discovery.InstanceID) *Peer {
	i, ok := slices.BinarySearchFunc(peers, id, func(p *Peer, id discovery.InstanceID) int {
		switch {
		case p.ID < id:
			return -1
		case p.ID > id:
			return 1
		}
		return 0
	})
	if !ok {
		return nil
	}
	return peers[i]
}

// meant returns the instances of the source that a name or an id stands for: the
// one with that id, else all with that name.
func (t *Tiers) meant(nameOrID string) []*Peer {
	if id, ok := meantID(nameOrID); ok {
		if p := t.byID(id); p != nil {
			return []*Peer{p}
		}
	}
	return t.named(nameOrID)
}

// meantID reads an id as a person writes it: in hex, of either case, 0x or not.
func meantID(s string) (discovery.InstanceID, bool) {
	n, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(s), "0x"), 16, 64)
	return discovery.InstanceID(n), err == nil
}

// meantLost does for Lost what meant does for Source.
func (t *Tiers) meantLost(nameOrID string) (peers []*Peer) {
	id, isID := meantID(nameOrID)
	for _, p := range t.Lost {
		if isID && p.ID == id {
			return []*Peer{p}
		}
		if p.Name == nameOrID {
			peers = append(peers, p)
		}
	}
	return peers
}
