//go:build linux

package cmd_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// TestNetworkSlowRequest sends a large request up a slow line: the bound on the
// server's first word begins when it has all been sent.
func TestNetworkSlowRequest(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	client, server := b.host(t), b.host(t)
	server.slow(t, "2mbit")
	client.smallSendBuffer(t)
	server.handle(t, "server", server.at(port), sized)
	text := sizedRequest(3, 2, 1) + strings.Repeat(" ", 900_000)
	p := client.start(t, strings.NewReader(text), "migrate", "request", "-", "--output", "json")
	wantSmooth(t, b, p, sizedAnswer(3, 2, 1))
}

// TestNetworkSlowItem has an item come down a slow line for longer than the
// stall timeout, while another request shares the connection: bytes are life,
// and it is nobody's fault that a start line waits behind them.
func TestNetworkSlowItem(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	client, server := b.host(t), b.host(t)
	server.slow(t, "400kbit")
	server.smallSendBuffer(t)
	const large = 1_000_000
	begun := make(chan struct{})
	begins := sync.OnceFunc(func() { close(begun) })
	server.handle(t, "server", server.at(port), func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		return sized(ctx, req, func(item stream.Annotated) error {
			err := send(item)
			if len(item.Data) > large {
				begins() // and what is asked from now on waits behind it
			}
			return err
		})
	})
	c := client.caller(t)
	first := make(chan error, 1)
	go func() { first <- c.askSmoothly(t.Context(), 1, large, 1) }()
	receive(t, begun, "the large answer did not begin")
	if err := c.askSmoothly(t.Context(), 1, 2, 3); err != nil {
		t.Errorf("the request beside it: %v", err)
	}
	if err := <-first; err != nil {
		t.Errorf("the large answer: %v", err)
	}
}

// relayPort is where a host's relay listens.
const relayPort = "4001"

// TestNetworkLong fills a long link with one answer. How fast that is depends on
// the machine; that far more is under way than a stream's first credit, which as
// a bound would make it slow on any, does not.
func TestNetworkLong(t *testing.T) {
	t.Parallel()
	const roundTrip, firstCredit, answer = 100 * time.Millisecond, 256 << 10, 16 << 20
	for _, item := range []int{1 << 10, 256 << 10} {
		t.Run(fmt.Sprintf("items of %d", item), func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			client, server := b.host(t), b.host(t)
			r := startRelay(t, server.listen(t, relayPort), roundTrip/2, func(ctx context.Context) (net.Conn, error) {
				return server.dial(ctx, server.at(port))
			})
			server.handle(t, "server", server.at(relayPort), sized)
			if err := client.caller(t).askSmoothly(t.Context(), slices.Repeat([]int{item}, answer/item)...); err != nil {
				t.Error(err)
			}
			if most := r.answers.most.Load(); most < 2*firstCredit {
				t.Errorf("at most %d bytes were under way, want well above %d", most, firstCredit)
			}
		})
	}
}

// wantSmooth waits until a request has ended well, at the first attempt, with
// the right answer.
func wantSmooth(t *testing.T, b *bed, p *process, answer []string) {
	t.Helper()
	b.ended(t, p, 0)
	all, err := parseEvents(p.stdout.String())
	if err != nil {
		t.Fatal(err)
	}
	receipt := all[0].receipt()
	if got := all[0].answer(t); !slices.Equal(got, answer) {
		t.Errorf("the answer is %.1000q, want %.1000q", got, answer)
	}
	if len(receipt.Attempts) != 1 || receipt.Attempts[0].Kind != "" || receipt.Attempts[0].Reported {
		t.Errorf("the attempts are %+v, want one that no break ended", receipt.Attempts)
	}
}
