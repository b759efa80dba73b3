// Package owner tells whose a record is that stands under a key of ours.
//
// The owner of a key remembers what it has put there. What it finds later may
// be its own record that somebody has copied back or edited, what is left of it
// after damage, or the record of another owner who has taken the key.
package owner

import (
	"bytes"
	"encoding/json"
)

// Same reports whether found is the record of the owner of ours: the same
// bytes, or a JSON object with the same incarnation, however it was edited.
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

// Damaged reports whether found is nobody's record: empty, or no JSON object
// where ours is one, as of a file that was cut.
func Damaged(ours, found []byte) bool {
	if len(found) == 0 {
		return true
	}
	_, whole := incarnation(ours)
	_, foundWhole := incarnation(found)
	return whole && !foundWhole
}

// incarnation returns that of a record, and whether it is a JSON object at all.
func incarnation(value []byte) (string, bool) {
	var record struct {
		Incarnation string `json:"incarnation"`
	}
	err := json.Unmarshal(value, &record)
	return record.Incarnation, err == nil
}
