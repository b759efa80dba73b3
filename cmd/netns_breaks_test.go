//go:build linux

package cmd_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// TestNetworkBreaks has something happen to the network between a client and
// the server that is answering it. The client must notice although it has
// nothing to send, and before the bound on the connection's silence; then the
// answer goes on elsewhere.
func TestNetworkBreaks(t *testing.T) {
	t.Parallel()
	const (
		// A middlebox answers the first probe, after some 4 s.
		standard = "15s"
		// A lost host is noticed after some 10 s, and on a busy machine later:
		// this is longer than the test waits.
		never = "10m"
	)
	tests := []struct {
		name  string
		stall string
		does  func(t *testing.T, b *bed, client, first *host)
	}{
		{"reset", standard, func(t *testing.T, b *bed, client, first *host) {
			t.Helper()
			b.bothWays(t, client, first, reset)
		}},
		{"unreachable", never, func(t *testing.T, b *bed, client, first *host) {
			t.Helper()
			b.bothWays(t, client, first, unreachable)
		}},
		{"nothing passes", never, func(t *testing.T, b *bed, client, first *host) {
			t.Helper()
			b.bothWays(t, client, first, dropped)
		}},
		{"nothing passes to the server", never, func(t *testing.T, b *bed, client, first *host) {
			t.Helper()
			b.oneWay(t, client, first, dropped)
		}},
		{"nothing passes to the client", never, func(t *testing.T, b *bed, client, first *host) {
			t.Helper()
			b.oneWay(t, first, client, dropped)
		}},
		{"link down", never, func(t *testing.T, _ *bed, _, first *host) {
			t.Helper()
			first.linkDown(t)
		}},
		{"address gone", never, func(t *testing.T, _ *bed, _, first *host) {
			t.Helper()
			first.addressGone(t)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			client, first, second := b.host(t), b.host(t), b.host(t)
			sent := make(chan struct{})
			first.handle(t, "first", first.at(port), func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
				return stream.Echo("first", 50*time.Millisecond)(ctx, req, func(item stream.Annotated) error {
					select {
					case sent <- struct{}{}:
					default: // nobody asks now
					}
					return send(item)
				})
			})
			second.serve(t, "second")
			// More than a server is going to send of which nobody hears.
			text := strings.Repeat(fox, 20)
			p := client.start(t, nil, "migrate", "request", text, "--instance", "first", "--resume", "--output", "json",
				"--stall-timeout", tt.stall, "--start-timeout", patience.String())
			if err := p.await(p.stdout, `"type":"item"`, 5); err != nil {
				t.Fatal(err)
			}
			if tt.name == "reset" {
				// First a client that has acknowledged all that it is going to
				// get, else it would hear at once.
				b.bothWays(t, client, first, dropped)
				for range 10 {
					receive(t, sent, "the server sent no item")
				}
			}
			tt.does(t, b, client, first)
			wantBreak(t, b, p, strings.Split(text, ""), "reset")
		})
	}
}

// receive waits for c, or fails with what happened otherwise.
func receive(t *testing.T, c <-chan struct{}, otherwise string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("%s (%v)", otherwise, patience)
	}
}

// TestNetworkDropsLargeRequest has the path to one server lose every large
// packet, and no small one: it connects, and then hears nothing of a request.
func TestNetworkDropsLargeRequest(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	client, first, second := b.host(t), b.host(t), b.host(t)
	first.handle(t, "first", first.at(port), sized)
	second.handle(t, "second", second.at(port), sized)
	b.bothWays(t, client, first, largeDropped)
	text := sizedRequest(5, 5) + strings.Repeat(" ", 100_000)
	p := client.start(t, strings.NewReader(text), "migrate", "request", "-", "--instance", "first", "--resume", "--output", "json")
	wantBreak(t, b, p, sizedAnswer(5, 5), "unresponsive")
}

// TestNetworkDropsLargeItem has the same path, on which an answer begins well.
func TestNetworkDropsLargeItem(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	client, first, second := b.host(t), b.host(t), b.host(t)
	arrived := make(chan struct{})
	first.handle(t, "first", first.at(port), func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		return sized(ctx, req, func(item stream.Annotated) error {
			if len(item.Data) > 1000 {
				select {
				case <-arrived: // so that small items do not share its packets
				case <-ctx.Done():
				}
			}
			return send(item)
		})
	})
	second.handle(t, "second", second.at(port), sized)
	b.bothWays(t, client, first, largeDropped)
	sizes := []int{5, 5, 100_000, 5}
	p := client.start(t, nil, "migrate", "request", sizedRequest(sizes...), "--instance", "first", "--resume", "--output", "json")
	if err := p.await(p.stdout, `"type":"item"`, 2); err != nil {
		t.Fatal(err)
	}
	close(arrived)
	wantBreak(t, b, p, sizedAnswer(sizes...), "stalled reset")
}

// wantBreak waits until a request that began at first has ended well at second,
// after a break of one of the kinds, with the right answer. It does not
// check whether first was reported: a client that a busy machine has kept from
// running for a while reports nobody, and may try first once more.
func wantBreak(t *testing.T, b *bed, p *process, answer []string, kinds string) {
	t.Helper()
	if err := p.await(p.stdout, `"type":"break"`, 1); err != nil {
		t.Fatal(err)
	}
	b.ended(t, p, 0)
	all, err := parseEvents(p.stdout.String())
	if err != nil {
		t.Fatal(err)
	}
	receipt := all[0].receipt()
	if got := all[0].answer(t); receipt.Outcome != "success" || receipt.Repeated != 0 || !slices.Equal(got, answer) {
		t.Errorf("the answer is %.1000q, want %.1000q; the receipt is %+v", got, answer, receipt)
	}
	if first := receipt.Attempts[0]; first.Name != "first" || !strings.Contains(kinds, first.Kind) {
		t.Errorf("the first attempt is %+v, want one of %s at first", first, kinds)
	}
	if last := receipt.Served[len(receipt.Served)-1]; last.Name != "second" {
		t.Errorf("%+v, want the last of it by second", receipt.Served)
	}
}

// answer returns the items of the answer without what an echo puts before them,
// each once.
func (r requestEvents) answer(t *testing.T) []string {
	t.Helper()
	var items []string
	for _, e := range r {
		if e.Type != "item" || *e.Index < len(items) {
			continue
		}
		var text string
		if err := json.Unmarshal(e.Data, &text); err != nil {
			t.Fatal(err)
		}
		if _, echoed, ok := strings.Cut(text, ", data: "); ok {
			text = echoed
		}
		items = append(items, text)
	}
	return items
}

// requestsOf reads the output of requests that ran at the same time: the lines
// of each are in their order, and those of one that has not ended are left out.
func requestsOf(t *testing.T, output string) []requestEvents {
	t.Helper()
	lines := make(map[string]string) // by request
	var sorted strings.Builder
	for line := range strings.Lines(output) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in line: %s", err, line)
		}
		lines[e.Request] += line
		if e.Type == "result" {
			sorted.WriteString(lines[e.Request])
		}
	}
	all, err := parseEvents(sorted.String())
	if err != nil {
		t.Fatal(err)
	}
	return all
}
