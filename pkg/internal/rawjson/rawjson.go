// Package rawjson reads and writes JSON of which only some parts matter: the others, and every
// string, pass byte for byte.
package rawjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/request-migration/migrate/pkg/stream"
)

// An Object is a JSON object of which only some fields matter here: the others pass
// through byte for byte.
type Object map[string]json.RawMessage

// Read reads data as an object. It is not nil if there is no error.
func Read(data []byte) (Object, error) {
	var o Object
	if err := json.Unmarshal(data, &o); err != nil {
		return nil, fmt.Errorf("reading an object: %w", err)
	}
	if o == nil {
		return nil, errors.New("reading an object: it is null")
	}
	return o, nil
}

// Bytes returns the object as JSON, its fields sorted by name, without those that
// have no value.
// (encoding/json would write the fields' strings anew, with other escapes.)
func (o Object) Bytes() json.RawMessage {
	size := 2
	for name, value := range o {
		size += len(name) + len(value) + 4
	}
	dst := append(make([]byte, 0, size), '{')
	for _, name := range slices.Sorted(maps.Keys(o)) {
		if len(o[name]) == 0 {
			continue
		}
		if len(dst) > 1 {
			dst = append(dst, ',')
		}
		dst = append(append(dst, stream.String(name)...), ':')
		dst = append(dst, o[name]...)
	}
	return append(dst, '}')
}

// Has reports whether the field is there and not null.
func (o Object) Has(name string) bool { return !IsNull(o[name]) }

// Str returns the string in the field, "" if it holds none.
func (o Object) Str(name string) string {
	s, _ := Decode(o[name])
	return s
}

// Yes reports whether the field is true.
func (o Object) Yes(name string) bool { return string(o[name]) == "true" }

// Int returns the whole number in the field, and whether there is one.
func (o Object) Int(name string) (int, bool) {
	n, err := strconv.Atoi(string(o[name]))
	return n, err == nil
}

// Sub returns the object in the field; nil if it holds none.
func (o Object) Sub(name string) Object {
	if raw := o[name]; len(raw) == 0 || raw[0] != '{' {
		return nil
	}
	sub, err := Read(o[name])
	if err != nil {
		return nil
	}
	return sub
}

// List returns the elements of the array in the field; nil if it holds none.
func (o Object) List(name string) []json.RawMessage {
	if raw := o[name]; len(raw) == 0 || raw[0] != '[' {
		return nil
	}
	var l []json.RawMessage
	if json.Unmarshal(o[name], &l) != nil {
		return nil
	}
	return l
}

// Join returns an array of the elements.
func Join(elements []json.RawMessage) json.RawMessage {
	dst := []byte{'['}
	for i, e := range elements {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, e...)
	}
	return append(dst, ']')
}

// IsNull reports whether there is no value, or null.
func IsNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// IsNothing reports whether a value says nothing: null, or empty.
func IsNothing(raw json.RawMessage) bool {
	switch string(raw) {
	case "", "null", `""`, "[]", "{}":
		return true
	}
	return false
}

// IsString reports whether raw, which is valid JSON, is a string.
func IsString(raw json.RawMessage) bool { return len(raw) >= 2 && raw[0] == '"' }

// Decode returns what a JSON string stands for, and whether raw is one.
func Decode(raw json.RawMessage) (string, bool) {
	return stream.Annotated{Data: raw}.Text()
}

// Number returns n as JSON.
func Number(n int) json.RawMessage { return strconv.AppendInt(nil, int64(n), 10) }

// OneLine returns the value without the line breaks that JSON allows between its
// parts.
func OneLine(raw json.RawMessage) json.RawMessage {
	if bytes.IndexByte(raw, '\n') < 0 && bytes.IndexByte(raw, '\r') < 0 {
		return raw
	}
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return raw
	}
	return b.Bytes()
}

// Bool returns b as JSON.
func Bool(b bool) json.RawMessage { return strconv.AppendBool(nil, b) }
