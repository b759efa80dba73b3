package stream

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// A client remembers a bounded number of draining servers, the latest ones.
func TestDrainingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Client
		for i := range 2 * maxDraining {
			c.saidDraining(fmt.Sprint(i))
			time.Sleep(time.Millisecond)
		}
		if n := len(c.draining); n != maxDraining {
			t.Errorf("%d are remembered, want %d", n, maxDraining)
		}
		for i, want := range map[int]bool{maxDraining - 1: false, maxDraining: true, 2*maxDraining - 1: true} {
			if got := c.SaidDraining(fmt.Sprint(i)); got != want {
				t.Errorf("%d is remembered: %v", i, got)
			}
		}
		time.Sleep(drainingKept)
		c.saidDraining("new")
		if n := len(c.draining); n != 1 {
			t.Errorf("%d are remembered though nearly all are too old", n)
		}
	})
}
