package router

import (
	"slices"
	"sync"

	"github.com/request-migration/migrate/pkg/discovery"
)

// nameIndex finds the instances of a source by their names. It is made when
// somebody first asks, and serves all tiers with that source.
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
func (t *Tiers) byID(id discovery.InstanceID) *Peer {
	i, ok := slices.BinarySearchFunc(t.Source, id, func(p *Peer, id discovery.InstanceID) int {
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
	return t.Source[i]
}

// meant returns those of the source that a person can mean by a name or an id:
// the one with that id, else all with that name.
func (t *Tiers) meant(nameOrID string) []*Peer {
	if id, err := discovery.ParseInstanceID(nameOrID); err == nil {
		if p := t.byID(id); p != nil {
			return []*Peer{p}
		}
	}
	return t.named(nameOrID)
}

// meantLost does what meant does, among the lost.
func (t *Tiers) meantLost(nameOrID string) (peers []*Peer) {
	for _, p := range t.Lost {
		if p.ID.String() == nameOrID {
			return []*Peer{p}
		}
		if p.Name == nameOrID {
			peers = append(peers, p)
		}
	}
	return peers
}
