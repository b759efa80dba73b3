package router

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// leavingServers is a client to which some servers have said that they are draining.
type leavingServers struct {
	*servers
	addrs string
}

func (c leavingServers) SaidDraining(i discovery.Instance) bool {
	return strings.Contains(c.addrs, i.Address)
}

// Instances that discovery loses together are kept as a last resort.
func TestLostInstances(t *testing.T) {
	for name, tt := range map[string]struct {
		left  []int // of five
		step  time.Duration
		drain string
		want  string
	}{
		"most":             {[]int{1, 2}, 0, "", "server3 server4 server5"},
		"half":             {[]int{1, 2, 3}, 0, "", ""},
		"most, slowly":     {[]int{1, 2}, 4 * time.Second, "", "server3 server4 server5"}, // within 10 s
		"most, one drains": {nil, 0, "server2 server4", "server1 server3 server5"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newListing(instances(5)...)
				r := start(t, Config{Source: l, Client: leavingServers{&servers{}, tt.drain}})
				synctest.Wait()
				n := 5
				for n > len(tt.left) {
					n--
					if tt.step == 0 {
						n = len(tt.left)
					}
					l.list(instances(n)...)
					sleep(tt.step)
				}
				synctest.Wait()
				if got := names(r.Tiers().Lost); got != tt.want {
					t.Errorf("lost %q, want %q", got, tt.want)
				}
				sleep(keepLost)
				if got := names(r.Tiers().Lost); got != "" {
					t.Errorf("still %q after %v", got, keepLost)
				}
			})
		})
	}
}

func TestFewAreLostWhenAllAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListing(instances(3)...)
		r := start(t, Config{Source: l})
		synctest.Wait()
		l.list(instance(1))
		synctest.Wait()
		if got := names(r.Tiers().Lost); got != "" {
			t.Errorf("two of three: lost %q", got)
		}
		l.list()
		synctest.Wait()
		if got := names(r.Tiers().Lost); got != "server1 server2 server3" {
			t.Errorf("all: lost %q", got)
		}
		l.list(instances(2)...)
		synctest.Wait()
		if got := names(r.Tiers().Lost); got != "server3" {
			t.Errorf("two are back: lost %q", got)
		}
	})
}

// A request goes to a lost instance when Wait is over. A lost instance that fails is
// given up.
func TestLostAreTheLastResort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListing(instances(2)...)
		client := &servers{by: map[string]server{"server1": breaking(stream.Unreachable, 0), "server2": whole}}
		log, logged := record()
		r := start(t, Config{Source: l, Client: client, Wait: 3 * time.Second, Logger: log})
		synctest.Wait()
		l.list()
		synctest.Wait()
		wantEnd(t, r, hello(), "", 3*time.Second)
		if got := client.asked(); got != "server1 server2" {
			t.Errorf("asked %s", got)
		}
		if got := names(r.Tiers().Lost); got != "server2" {
			t.Errorf("lost %q after the other failed", got)
		}
		sleep(time.Minute)
		req := hello()
		req.Instance = "server2"
		wantEnd(t, r, req, "", 3*time.Second)
		l.list(instance(3))
		client.by["server3"] = breaking(stream.Failed, 2)
		synctest.Wait()
		wantEnd(t, r, hello(), "", 0)
		if got := client.asked(); got != "server1 server2 server2 server3 server2" {
			t.Errorf("asked %s", got)
		}
		if n := strings.Count(logged(), "level=WARN"); n != 2 {
			t.Errorf("%d warnings, want one of the loss and one of the failure:\n%s", n, logged())
		}
	})
}

// With WaitRestore a request goes back to the only server after its cooldown, and
// after as long to one that was not reported.
func TestWaitRestoreBringsBackTheOnly(t *testing.T) {
	for name, tt := range map[string]struct {
		kind stream.Kind
		wait time.Duration
		want string
	}{
		"down":           {stream.Failed, 8 * time.Second, "he|llo"},
		"not reported":   {stream.Local, 8 * time.Second, "he|llo"},
		"refused":        {stream.Draining, 8 * time.Second, ""},
		"without a wait": {stream.Failed, 0, ""},
		"too short":      {stream.Failed, 4 * time.Second, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				at := 2
				if tt.kind == stream.Draining {
					at = 0
				}
				client := &servers{by: map[string]server{"server1": breaking(tt.kind, at)}}
				r := start(t, Config{Source: newListing(instance(1)), Client: client, WaitRestore: tt.wait})
				time.AfterFunc(time.Second, func() {
					client.mu.Lock()
					defer client.mu.Unlock()
					client.by["server1"] = whole
				})
				began := time.Now()
				got, err := ask(t.Context(), r, hello())
				if tt.want == "" {
					if !errors.Is(err, ErrNoInstances) || time.Since(began) != tt.wait {
						t.Errorf("got %q, %v after %v", got, err, time.Since(began))
					}
					return
				}
				if got != tt.want || err != nil || time.Since(began) != DefaultCooldown {
					t.Errorf("got %q, %v after %v", got, err, time.Since(began))
				}
			})
		})
	}
}

// A request does not go back to where it broke while another instance is left.
func TestWaitRestorePrefersOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{
			"server1": breaking(stream.Failed, 1), "server2": after(10*time.Second, breaking(stream.Failed, 2)), "server3": whole,
		}}
		r := start(t, Config{Source: newListing(instances(3)...), Client: client, WaitRestore: time.Minute})
		if got, err := ask(t.Context(), r, hello()); got != "h|e|llo" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if got := client.asked(); got != "server1 server2 server3" {
			t.Errorf("asked %s", got)
		}
	})
}

// With Panic a request that has delivered nothing asks once more, after a while.
func TestPanic(t *testing.T) {
	const ms = time.Millisecond
	for name, tt := range map[string]struct {
		serve    server
		asked    int
		min, max time.Duration // when it ends
	}{
		"broke":            {breaking(stream.Failed, 0), 2, 500 * ms, 750 * ms},
		"asked for little": {refusing(200 * ms), 2, 200 * ms, 300 * ms},
		"asked for much":   {refusing(5001 * ms), 1, 0, 0},
		"was silent":       {breaking(stream.Unresponsive, 0), 1, 0, 0},
		"leaves":           {breaking(stream.Draining, 0), 1, 0, 0},
		"has begun":        {breaking(stream.Failed, 1), 1, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := &servers{by: map[string]server{"server1": tt.serve}}
				r := start(t, Config{Source: newListing(instance(1)), Client: client, Panic: true})
				began := time.Now()
				_, err := ask(t.Context(), r, hello())
				took := time.Since(began)
				if err == nil || len(client.calls) != tt.asked || took < tt.min || took > tt.max {
					t.Errorf("asked %s in %v: %v", client.asked(), took, err)
				}
			})
		})
	}
}

// One request at a time asks an instance in panic; the instance may have returned.
func TestPanicOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{"server1": after(time.Second, whole)}}
		r := start(t, Config{Source: newListing(instance(1)), Client: client, Panic: true})
		synctest.Wait()
		for range 2 {
			r.ReportDown(1, stream.Failed)
			if asked := askAll(t, r, client, 10); asked["server1"] != 0 {
				t.Errorf("asked at once: %v", asked)
			}
			if n := len(client.calls); n != 1 {
				t.Errorf("%d requests asked it, want one", n)
			}
			client.calls = nil
			sleep(DefaultCooldown)
		}
	})
}
