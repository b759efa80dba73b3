package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// A client remembers nothing of addresses to which it has no connection.
func TestClientForgetsAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{Dial: func(_ context.Context, addr string) (net.Conn, error) {
			if addr == "refused" {
				return nil, errors.New("refused")
			}
			ours, theirs := net.Pipe()
			t.Cleanup(func() { theirs.Close() })
			if addr == "closed" {
				theirs.Close()
			}
			return ours, nil
		}}
		defer c.Close()
		for _, addr := range []string{"refused", "closed", "silent"} {
			for _, err := range c.Stream(t.Context(), addr, Request{Data: String("x")}) {
				if err == nil {
					t.Errorf("an item from %s", addr)
				}
			}
		}
		time.Sleep(2 * DefaultIdleTimeout)
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.pools) != 0 {
			t.Errorf("client remembers %s", fmt.Sprint(c.pools))
		}
	})
}
