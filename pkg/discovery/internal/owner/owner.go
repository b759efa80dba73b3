// Package owner recognises an owner's record.
//
// The owner of a key knows what it has put there. What it finds there later may be its
// own record, copied back or edited by somebody, the damaged rest of it, or the record
// of another owner who has taken the key.
package owner

import (
	"bytes"
	"encoding/json"
)

// Same reports whether found belongs to the owner of ours: it has the same bytes, or is
// a JSON object with the same incarnation, whatever else was edited.
func Same(ours, found []byte) bool {
	if bytes.Equal(ours, found) {
		return true
	}
	mine, ok := incarnation(ours)
	if !ok || mine == "" {
		return false
	}
	other, _ := incarnation(found)
	return other == mine
}

// Damaged reports whether found is nobody's record: it is empty, or it is no JSON
// object although ours is one, as in a file that was cut.
func Damaged(ours, found []byte) bool {
	if len(found) == 0 {
		return true
	}
	_, whole := incarnation(ours)
	_, foundWhole := incarnation(found)
	return whole && !foundWhole
}

// incarnation returns a record's incarnation, and whether the record is a JSON object.
func incarnation(value []byte) (string, bool) {
	var record struct {
		Incarnation string `json:"incarnation"`
	}
	err := json.Unmarshal(value, &record)
	return record.Incarnation, err == nil
}
