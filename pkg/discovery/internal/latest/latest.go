// Package latest hands the newest value to readers that may be slow.
package latest

import "sync"

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

// Set replaces the value and wakes whoever waits for that.
func (v *Value[T]) Set(value T) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.value = value
	close(v.changed)
	v.changed = make(chan struct{})
}

// Get returns the value, and a channel that is closed once it has been replaced.
func (v *Value[T]) Get() (value T, changed <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.value, v.changed
}
