//go:build linux

package cmd_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// TestNetworkForgetsFlows has the router between a client and its servers forget
// every connection that the client keeps. A fresh one takes the place of each,
// which costs no attempt and is nobody's fault.
func TestNetworkForgetsFlows(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		servers int
	}{{"one server", 1}, {"two servers", 2}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			client := b.host(t)
			var servers []string
			for range tt.servers {
				h := b.host(t)
				h.handle(t, "server", h.at(port), sized)
				servers = append(servers, h.at(port))
			}
			b.hide(t, client)
			c := client.caller(t)
			askEach := func(when string) {
				t.Helper()
				for range servers {
					if err := c.askSmoothly(t.Context(), 1, 2, 3); err != nil {
						t.Errorf("%s: %v", when, err)
					}
				}
			}
			askEach("before")
			b.forget(t)
			askEach("after")
			for _, addr := range servers {
				if n := c.dialed(addr); n != 2 {
					t.Errorf("%d connections to %s, want one before and one after", n, addr)
				}
			}
		})
	}
}

// TestNetworkLosesClient has the host of a client vanish while a handler answers
// it. The handler must hear of it, whether it has something to send or not.
func TestNetworkLosesClient(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		pause time.Duration // between items
	}{{"sending", 100 * time.Millisecond}, {"silent", time.Hour}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			client, server := b.host(t), b.host(t)
			ended := make(chan struct{})
			server.handle(t, "server", server.at(port), func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
				defer close(ended)
				return stream.Echo("server", tt.pause)(ctx, req, send)
			})
			text := strings.Repeat(fox, 20) // which takes longer than the test
			p := client.start(t, nil, "migrate", "request", text, "--output", "json", "--attempts", "1")
			if err := p.await(p.stdout, `"type":"item"`, 1); err != nil {
				t.Fatal(err)
			}
			b.bothWays(t, client, server, dropped)
			p.kill()
			receive(t, ended, "the handler did not end")
		})
	}
}

// TestNetworkNameWithDeadAddress connects to a name of two addresses, the first
// of which nothing answers at.
func TestNetworkNameWithDeadAddress(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	client, server := b.host(t), b.host(t)
	const dead = "10.77.99.9"
	b.router.run(t, "ip", "route", "add", "blackhole", dead)
	hosts := filepath.Join(b.dir, "hosts")
	if err := os.WriteFile(hosts, []byte(dead+" server.test\n"+server.addr+" server.test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	server.serve(t, "server", "--advertise", "server.test:"+port)
	p := client.start(t, nil, "unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`, hosts,
		"migrate", "request", "fox", "--output", "json")
	wantSmooth(t, b, p, []string{"f", "o", "x"})
}

// TestNetworkOwnLinkDown pulls the cable of the client's own machine: its
// requests fail, and that is no server's fault. Once it is in again, the first
// request succeeds.
func TestNetworkOwnLinkDown(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	client := b.host(t)
	for _, name := range []string{"first", "second"} {
		h := b.host(t)
		h.handle(t, name, h.at(port), sized)
	}
	c := client.caller(t)
	for range 2 { // a kept connection to each
		if err := c.askSmoothly(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	client.linkDown(t)
	receipt, err := c.ask(t.Context(), 1)
	if err == nil {
		t.Fatal("a request succeeded without a network")
	}
	for _, a := range receipt.Attempts {
		if a.Kind != stream.Local || a.Reported {
			t.Errorf("without a network an attempt is %+v, want it local", a)
		}
	}
	if reports, err := filepath.Glob(filepath.Join(b.kv, "v1", "down", "dynamo*")); err != nil || len(reports) > 0 {
		t.Errorf("the reports are %v, %v, want none", reports, err)
	}
	client.linkUp(t)
	if err := c.askSmoothly(t.Context(), 1, 2); err != nil {
		t.Errorf("with the network back: %v", err)
	}
}
