package discovery

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"strconv"
)

// NDJSON is the [Instance.Transport] of the instances that package stream can
// talk to: newline-delimited JSON over TCP.
const NDJSON = "ndjson"

// An Instance is one running server of an endpoint.
type Instance struct {
	ID       InstanceID
	Name     string // for people; need not be unique, may be empty
	Endpoint Endpoint
	// Transport says how Address is spoken to: [NDJSON], or in the records of a
	// real Dynamo "tcp", "nats_tcp", "http", or what else may come.
	Transport string
	Address   string // host:port for NDJSON, otherwise the transport's own form
	// Incarnation tells a server from one that was started anew under the same
	// id: [Registry.Register] sets it. It may be empty.
	Incarnation string
	// Resume says how the instance carries on an answer that another one began.
	// "" is unknown.
	Resume Resume
	// MaxRequest is the longest line of a request that the instance takes, in
	// bytes; 0 is 1 MiB.
	MaxRequest int
	// Wire is the version of the protocol that the instance speaks; 0 is 1.
	Wire int
}

// WireVersion is the newest version of the protocol that this module speaks.
const WireVersion = 1

// Resume is a way to carry an answer on at another instance.
type Resume string

// The ways to resume that a record can state.
const (
	// ResumeIndex: the instance begins at any item, by its number.
	ResumeIndex Resume = "index"
	// ResumeNo: the instance begins at the first item only.
	ResumeNo Resume = "no"
)

// Routable reports whether requests can be sent to i. The instances of other
// transports, and of a newer wire than this module speaks, are only listed.
func (i Instance) Routable() bool {
	return i.Transport == NDJSON && i.Address != "" && i.Wire <= WireVersion
}

// Same reports whether i and j are the same instance: its id and its
// incarnation. A record may change and still be that of the same instance.
func (i Instance) Same(j Instance) bool {
	return i.ID == j.ID && i.Incarnation == j.Incarnation
}

// Record is the name of the instance's record, "namespace/component/endpoint/id",
// by which a request says whom it is meant for.
func (i Instance) Record() string { return i.Endpoint.String() + "/" + i.ID.String() }

// An InstanceID tells the instances of an endpoint apart. Wherever it is shown
// it is lower-case hex, unpadded; in a record it is a JSON number.
type InstanceID uint64

// NewInstanceID returns a random id between 1 and 2^53-1, so that no JSON tool
// that reads numbers as floating point rounds it.
func NewInstanceID() InstanceID {
	return InstanceID(1 + rand.Uint64N(1<<53-1))
}

// ParseInstanceID reads the form that [InstanceID.String] writes, and no other:
// an id is also part of a key, where two spellings would be two instances.
func ParseInstanceID(s string) (InstanceID, error) {
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil || InstanceID(n).String() != s {
		return 0, fmt.Errorf("instance id %q: not a number below 2^64 in lower-case hex, unpadded", s)
	}
	return InstanceID(n), nil
}

// String returns id in lower-case hex, unpadded.
func (id InstanceID) String() string { return strconv.FormatUint(uint64(id), 16) }

// digits returns how many digits String gives id.
func (id InstanceID) digits() int { return max((bits.Len64(uint64(id))+3)/4, 1) }

// MarshalText returns what String does.
func (id InstanceID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what [ParseInstanceID] does.
func (id *InstanceID) UnmarshalText(text []byte) error {
	parsed, err := ParseInstanceID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}
