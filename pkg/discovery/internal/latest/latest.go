// Package latest hands the newest of a series of values to readers that may be slow.
package latest

import (
	"sync"
	"time"
)

// A Value holds the newest of a series of values. The zero Value is not usable;
// make one with [New]. It is safe for concurrent use.
type Value[T any] struct {
	mu      sync.Mutex // guards what follows
	value   T
	changed chan struct{}
}

// New returns a Value that holds first.
func New[T any](first T) *Value[T] {
	return &Value[T]{value: first, changed: make(chan struct{})}
}

// Set replaces the value and closes the channels that Get returned for the last one.
func (v *Value[T]) Set(value T) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.value = value
	close(v.changed)
	v.changed = make(chan struct{})
}

// Get returns the value, and a channel that is closed once it is replaced.
func (v *Value[T]) Get() (value T, changed <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.value, v.changed
}

// minPause is too short for anybody to notice, and long enough to collect the
// changes of a burst.
const minPause = 5 * time.Millisecond

// Pause returns how long to pause after work that a change has caused: so long that
// changes which keep coming cause work for a tenth of the time, but not longer than
// longest, within which a change must be noticed.
func Pause(work, longest time.Duration) time.Duration {
	return min(max(9*work, minPause), longest)
}
