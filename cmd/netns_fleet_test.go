//go:build linux

package cmd_test

import (
	"context"
	"fmt"
	"math"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/request-migration/migrate/pkg/discovery/etcd/etcdtest"
)

// TestNetworkCutOffClient cuts one of two clients off from servers, which it
// reports again and again. The other one, which sees the same reports, goes on
// as if nothing were: each request succeeds at its first attempt, and each
// server keeps its share, within a fifth of it.
func TestNetworkCutOffClient(t *testing.T) {
	t.Parallel()
	const servers, requests = 3, 1200
	for _, tt := range []struct {
		name string
		cut  int // servers that the first client is cut off from
	}{{"from one server", 1}, {"from all servers", servers}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			cut, sound := b.host(t), b.host(t)
			for i := range servers {
				h := b.host(t)
				// Slow enough that the requests last over several reports.
				h.serve(t, fmt.Sprintf("server%d", i), "--delay", "20ms")
				if i < tt.cut {
					b.bothWays(t, cut, h, dropped)
				}
			}
			reporter := cut.start(t, nil, "migrate", "request", "abcde", "--count", "10000", "--concurrency", "2",
				"--output", "json", "--resume", "--wait-restore", "1h")
			if err := reporter.await(reporter.stdout, `"type":"break"`, 1); err != nil {
				t.Fatal(err)
			}
			p := sound.start(t, nil, "migrate", "request", "abcde", "--count", fmt.Sprint(requests), "--concurrency", "8",
				"--router", "round-robin", "--output", "json", "--resume", "--start-timeout", patience.String())
			b.ended(t, p, 0)
			served := make(map[string]int)
			for _, r := range requestsOf(t, p.stdout.String()) {
				receipt := r.receipt()
				if receipt.Outcome != "success" || len(receipt.Attempts) != 1 || strings.Join(r.answer(t), "") != "abcde" {
					t.Errorf("the answer is %q, the receipt %+v", r.answer(t), receipt)
					continue
				}
				served[receipt.Served[0].Name]++
			}
			for i := range servers {
				name, fair := fmt.Sprintf("server%d", i), float64(requests)/servers
				if got := float64(served[name]); math.Abs(got-fair) > fair/5 {
					t.Errorf("%s served %v of %d requests, want about %.0f", name, got, requests, fair)
				}
			}
			if tt.cut < servers {
				wantOnlySuccess(t, b, reporter)
			}
		})
	}
}

// wantOnlySuccess interrupts a client that makes one request after the other.
// All that ended before must have done so well.
func wantOnlySuccess(t *testing.T, b *bed, p *process) {
	t.Helper()
	if err := p.signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	b.ended(t, p, 130)
	for _, r := range requestsOf(t, p.stdout.String()) {
		if receipt := r.receipt(); receipt.Outcome != "success" && receipt.Outcome != "cancelled" {
			t.Errorf("the receipt is %+v, want a success", receipt)
		}
	}
}

// etcd adds a host at which an etcd is, and makes the bed's commands use it. The
// etcd itself runs outside the bed.
func (b *bed) etcd(t *testing.T) (*host, *etcdtest.Server) {
	t.Helper()
	server := etcdtest.Start(t, etcdtest.Config{})
	h := b.host(t)
	startRelay(t, h.listen(t, "2379"), 0, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", strings.TrimPrefix(server.Endpoint(), "http://"))
	})
	b.env = append(b.env, "DYN_STORE_KV=etcd", "ETCD_ENDPOINTS=http://"+h.at("2379"), "ETCD_LEASE_TTL=2")
	return h, server
}

// etcdLoad starts a client that makes one request after the other, and waits for
// the first answers.
func etcdLoad(t *testing.T, client *host) *process {
	t.Helper()
	p := client.start(t, nil, "migrate", "request", fox, "--count", "2000", "--concurrency", "4", "--output", "json",
		"--resume", "--wait", "0s", "--start-timeout", patience.String(), "--log", "warn,discovery=debug,router=debug")
	moreAnswers(t, p)
	return p
}

// moreAnswers waits until a client has had some more answers, all that are on
// the way included.
func moreAnswers(t *testing.T, p *process) {
	t.Helper()
	const success = `"outcome":"success"`
	if err := p.await(p.stdout, success, strings.Count(p.stdout.String(), success)+12); err != nil {
		t.Fatal(err)
	}
}

// TestNetworkCutsServersOffEtcd lets the records of all servers run out, while
// the servers serve on. The client that knew them keeps them as a last resort.
func TestNetworkCutsServersOffEtcd(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	store, server := b.etcd(t)
	client := b.host(t)
	var servers []*host
	for _, name := range []string{"first", "second"} {
		h := b.host(t)
		h.serve(t, name, "--delay", "5ms")
		servers = append(servers, h)
	}
	p := etcdLoad(t, client)
	for _, h := range servers {
		b.bothWays(t, store, h, dropped)
	}
	awaitKeys(t, etcdtest.Client(t, server), 0)
	if err := p.await(p.stderr, `snapshot of instances .*instances=0`, 1); err != nil {
		t.Fatal(err)
	}
	moreAnswers(t, p)
	b.heal(t)
	awaitKeys(t, etcdtest.Client(t, server), len(servers))
	moreAnswers(t, p)
	wantOnlySuccess(t, b, p)
}

// TestNetworkCutsClientOffEtcd cuts a client off from etcd, not from the
// servers: it goes on with the last list that it has.
func TestNetworkCutsClientOffEtcd(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	store, _ := b.etcd(t)
	client := b.host(t)
	for _, name := range []string{"first", "second"} {
		b.host(t).serve(t, name, "--delay", "5ms")
	}
	p := etcdLoad(t, client)
	b.bothWays(t, store, client, dropped)
	if err := p.await(p.stderr, `instance_source is stale`, 1); err != nil {
		t.Fatal(err)
	}
	moreAnswers(t, p)
	b.heal(t)
	b.host(t).serve(t, "third", "--delay", "5ms")
	if err := p.await(p.stdout, `"name":"third"`, 1); err != nil {
		t.Fatal(err)
	}
	wantOnlySuccess(t, b, p)
}
