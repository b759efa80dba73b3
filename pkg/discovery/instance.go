package discovery

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"strconv"
)

// NDJSON is the [Instance.Transport] of the instances that package stream can
// connect to: newline-delimited JSON over TCP.
const NDJSON = "ndjson"

// An Instance is one running server of an endpoint.
type Instance struct {
	ID       InstanceID
	Name     string // for people; need not be unique, may be empty
	Endpoint Endpoint
	// Transport is the protocol that Address speaks: [NDJSON], or in the records of a
	// real Dynamo "tcp", "nats_tcp", "http" or others.
	Transport string
	Address   string // host:port for NDJSON, otherwise the transport's own form
	// Incarnation distinguishes servers that were started one after another under the
	// same id. [Registry.Register] sets it if it is empty.
	Incarnation string
	// Resume is the way in which the instance carries on an answer that another
	// instance began. "" is unknown.
	Resume Resume
	// Engine is what produces the instance's answers: "echo", "command", "openai". "" is
	// unknown, and taken for echo.
	Engine string
	// MaxRequest is the longest request line that the instance takes, in bytes. 0
	// stands for 1 MiB.
	MaxRequest int
	// Wire is the version of the protocol that the instance speaks. 0 stands for 1.
	Wire int
}

// WireVersion is the newest version of the protocol that this module speaks.
const WireVersion = 1

// A Resume is a way to carry an answer on at another instance.
type Resume string

// The ways to resume that a record can state.
const (
	// ResumeIndex: the instance can begin at any item, given by its index.
	ResumeIndex Resume = "index"
	// ResumePrefix: the instance goes on behind the items so far, which it is given.
	ResumePrefix Resume = "prefix"
	// ResumeNo: the instance can begin at the first item only.
	ResumeNo Resume = "no"
)

// Routable reports whether this module can send requests to i. Instances with another
// transport, or with a newer wire than [WireVersion], are only listed.
func (i Instance) Routable() bool {
	return i.Transport == NDJSON && i.Address != "" && i.Wire <= WireVersion
}

// Same reports whether i and j are the same instance: they have the same id and the
// same incarnation, whatever else differs.
func (i Instance) Same(j Instance) bool {
	return i.ID == j.ID && i.Incarnation == j.Incarnation
}

// Record returns the name of the instance's record, namespace/component/endpoint/id.
// A request carries it to say which instance it is meant for.
func (i Instance) Record() string { return i.Endpoint.String() + "/" + i.ID.String() }

// An InstanceID identifies an instance of an endpoint. It is shown in lower-case hex,
// unpadded; in a record it is a JSON number.
type InstanceID uint64

// NewInstanceID returns a random id between 1 and 2^53-1, so that no JSON tool
// that reads numbers as floating point rounds it.
func NewInstanceID() InstanceID {
	return InstanceID(1 + rand.Uint64N(1<<53-1))
}

// ParseInstanceID reads the form that [InstanceID.String] writes. Any other is an
// error: ids are parts of keys, where two spellings would be two instances.
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
