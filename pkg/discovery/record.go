package discovery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// instancesPrefix is what the keys of all instances begin with, as in Dynamo.
const instancesPrefix = "v1/instances/"

// kindEndpoint is the "type" of an instance's record. Records of older Dynamos don't
// have that field.
const kindEndpoint = "Endpoint"

// An instanceRecord is the value of an instance's record: Dynamo's fields in Dynamo's
// order, then ours, which Dynamo ignores.
type instanceRecord struct {
	Type       *string         `json:"type"`
	Namespace  string          `json:"namespace"`
	Component  string          `json:"component"`
	Endpoint   string          `json:"endpoint"`
	InstanceID *uint64         `json:"instance_id"`
	Transport  json.RawMessage `json:"transport"`
	Name       string          `json:"name,omitempty"`

	Incarnation string `json:"incarnation,omitempty"`
	Resume      Resume `json:"resume,omitempty"`
	Engine      string `json:"engine,omitempty"`
	MaxRequest  int    `json:"max_request,omitempty"`
	Wire        int    `json:"wire,omitempty"`
}

// EncodeInstance returns the key and the value of the record of i in a [Store]. The
// format is that of NVIDIA Dynamo's discovery, with an additional transport:
//
//	v1/instances/dynamo/backend/generate/4d2
//	{"type":"Endpoint","namespace":"dynamo","component":"backend","endpoint":"generate","instance_id":1234,"transport":{"ndjson":"127.0.0.1:41001"},"name":"server1"}
func EncodeInstance(i Instance) (key string, value []byte, err error) {
	if err := i.check(); err != nil {
		return "", nil, fmt.Errorf("encoding instance %s: %w", i.ID, err)
	}
	transport, err := json.Marshal(map[string]string{i.Transport: i.Address})
	if err != nil {
		return "", nil, fmt.Errorf("encoding instance %s: %w", i.ID, err)
	}
	kind, id := kindEndpoint, uint64(i.ID)
	value, err = json.Marshal(instanceRecord{
		Type:       &kind,
		Namespace:  i.Endpoint.Namespace,
		Component:  i.Endpoint.Component,
		Endpoint:   i.Endpoint.Name,
		InstanceID: &id,
		Transport:  transport,
		Name:       i.Name,

		Incarnation: i.Incarnation,
		Resume:      i.Resume,
		Engine:      i.Engine,
		MaxRequest:  i.MaxRequest,
		Wire:        i.Wire,
	})
	if err != nil {
		return "", nil, fmt.Errorf("encoding instance %s: %w", i.ID, err)
	}
	return i.key(), value, nil
}

// key returns the key of the record of i.
func (i Instance) key() string { return i.Endpoint.prefix() + i.ID.String() }

func (i Instance) check() error {
	if err := i.Endpoint.check(); err != nil {
		return err
	}
	if i.Transport == "" {
		return errors.New("it has no transport")
	}
	if i.Transport == NDJSON && i.Address == "" {
		return errors.New("it has no address")
	}
	// Package json would silently replace what is not UTF-8.
	for _, s := range []string{i.Name, i.Transport, i.Address, i.Incarnation, string(i.Resume), i.Engine} {
		if !utf8.ValidString(s) {
			return fmt.Errorf("%q is not valid UTF-8", s)
		}
	}
	if i.MaxRequest < 0 || i.Wire < 0 {
		return fmt.Errorf("it has the request size %d and the wire version %d, want 0 or more", i.MaxRequest, i.Wire)
	}
	return nil
}

// DecodeInstance reads the records that [EncodeInstance] writes and those of a real
// Dynamo, with any id and transport, with or without "type", and with any other
// fields. It is an error if key and value don't agree.
//
// Of several transports it takes NDJSON, or else the first by name. An address that
// is not a string becomes compact JSON; for NDJSON it is an error.
func DecodeInstance(key string, value []byte) (Instance, error) {
	i, err := decodeInstance(value)
	if err != nil {
		return Instance{}, fmt.Errorf("decoding record %q: %w", key, err)
	}
	if key != i.key() {
		return Instance{}, fmt.Errorf("decoding record %q: its value belongs under %q", key, i.key())
	}
	return i, nil
}

func decodeInstance(value []byte) (Instance, error) {
	var r instanceRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return Instance{}, err
	}
	if r.Type != nil && *r.Type != kindEndpoint {
		return Instance{}, fmt.Errorf("type is %q, not %q", *r.Type, kindEndpoint)
	}
	if r.InstanceID == nil {
		return Instance{}, errors.New("no instance_id")
	}
	i := Instance{
		ID:   InstanceID(*r.InstanceID),
		Name: r.Name,

		Incarnation: r.Incarnation,
		Resume:      r.Resume,
		Engine:      r.Engine,
		MaxRequest:  r.MaxRequest,
		Wire:        r.Wire,
		Endpoint:    Endpoint{Namespace: r.Namespace, Component: r.Component, Name: r.Endpoint},
	}
	if err := i.Endpoint.check(); err != nil {
		return Instance{}, err
	}
	if r.Transport == nil {
		return Instance{}, errors.New("no transport")
	}
	if r.MaxRequest < 0 || r.Wire < 0 {
		return Instance{}, fmt.Errorf("max_request is %d and wire %d, want 0 or more", r.MaxRequest, r.Wire)
	}
	var err error
	i.Transport, i.Address, err = decodeTransport(r.Transport)
	return i, err
}

// decodeTransport reads {"kind":"address"}, or "kind" alone, which is what Rust's
// serde writes for a kind without an address.
func decodeTransport(raw json.RawMessage) (kind, address string, err error) {
	if bytes.HasPrefix(raw, []byte(`"`)) {
		err = json.Unmarshal(raw, &kind)
	} else {
		var byKind map[string]json.RawMessage
		if err = json.Unmarshal(raw, &byKind); err == nil && len(byKind) > 0 {
			kind = slices.Min(slices.Collect(maps.Keys(byKind)))
			if _, ok := byKind[NDJSON]; ok {
				kind = NDJSON
			}
			address, err = decodeAddress(kind, byKind[kind])
		}
	}
	switch {
	case err != nil:
		return "", "", fmt.Errorf("transport: %w", err)
	case kind == "":
		return "", "", errors.New("no transport")
	}
	return kind, address, nil
}

func decodeAddress(kind string, raw json.RawMessage) (address string, err error) {
	if kind == NDJSON || bytes.HasPrefix(raw, []byte(`"`)) {
		err = json.Unmarshal(raw, &address)
		return address, err
	}
	var compact bytes.Buffer
	err = json.Compact(&compact, raw)
	return strings.ToValidUTF8(compact.String(), "\ufffd"), err
}
