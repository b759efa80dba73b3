package router

import (
	"slices"
	"strconv"
	"strings"
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
	if id, ok := meantID(nameOrID); ok {
		if p := t.byID(id); p != nil {
			return []*Peer{p}
		}
	}
	return t.named(nameOrID)
}

// meantID reads an id in whatever form a number in hex has.
func meantID(s string) (discovery.InstanceID, bool) {
	n, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(s), "0x"), 16, 64)
	return discovery.InstanceID(n), err == nil
}

// meantLost does what meant does, among the lost.
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
