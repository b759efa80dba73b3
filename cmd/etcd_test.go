//go:build unix

package cmd_test

import (
	"context"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/request-migration/migrate/pkg/discovery/etcd/etcdtest"
)

const instancesPrefix = "v1/instances/"

// newEtcdWorld is a world whose store is an etcd of its own.
func newEtcdWorld(t *testing.T, leaseTTL string) (*world, *etcdtest.Server) {
	t.Helper()
	server := etcdtest.Start(t, etcdtest.Config{})
	w := newWorld(t)
	w.env = append(w.env, "DYN_STORE_KV=etcd", "ETCD_ENDPOINTS="+server.Endpoint(), "ETCD_LEASE_TTL="+leaseTTL)
	return w, server
}

// keys returns the keys and values of the instances in etcd.
func keys(t *testing.T, c *clientv3.Client) map[string]*clientv3.GetResponse {
	t.Helper()
	list, err := c.Get(t.Context(), instancesPrefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]*clientv3.GetResponse)
	for _, kv := range list.Kvs {
		one, err := c.Get(t.Context(), string(kv.Key))
		if err != nil {
			t.Fatal(err)
		}
		found[string(kv.Key)] = one
	}
	return found
}

// awaitKeys waits until etcd has n records of instances.
func awaitKeys(t *testing.T, c *clientv3.Client, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	watch := c.Watch(ctx, instancesPrefix, clientv3.WithPrefix())
	for len(keys(t, c)) != n {
		if _, ok := <-watch; !ok {
			t.Fatalf("etcd has %d instances, want %d", len(keys(t, c)), n)
		}
	}
}

// TestEtcdRecords checks the records that a server puts into etcd, and their end.
func TestEtcdRecords(t *testing.T) {
	t.Parallel()
	w, server := newEtcdWorld(t, "2")
	c := etcdtest.Client(t, server)
	first := w.serve(t, "first")
	all := keys(t, c)
	if len(all) != 1 {
		t.Fatalf("etcd has %d instances", len(all))
	}
	for key, got := range all {
		id, ok := strings.CutPrefix(key, instancesPrefix+"dynamo/backend/generate/")
		number, err := strconv.ParseUint(id, 16, 64)
		if !ok || err != nil || number >= 1<<53 {
			t.Errorf("the key is %s", key)
		}
		want := regexp.MustCompile(`^{"type":"Endpoint","namespace":"dynamo","component":"backend","endpoint":"generate","instance_id":` +
			strconv.FormatUint(number, 10) + `,"transport":{"ndjson":"127\.0\.0\.1:\d+"},"name":"first",`)
		if value := got.Kvs[0].Value; !want.Match(value) || !json.Valid(value) {
			t.Errorf("the value is %s", value)
		}
		lease, err := c.TimeToLive(t.Context(), clientv3.LeaseID(got.Kvs[0].Lease))
		if err != nil || lease.GrantedTTL != 2 {
			t.Errorf("the lease is %+v, %v", lease, err)
		}
	}

	// The records of a stopped server go at once, those of a killed one with its lease.
	if err := first.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.ended(t, first, 0)
	awaitKeys(t, c, 0)
	second := w.serve(t, "second")
	began := time.Now()
	second.kill()
	awaitKeys(t, c, 0)
	if took := time.Since(began); took < time.Second {
		t.Errorf("a killed server's record was gone after %v, before its lease", took)
	}
}

// TestEtcdGoesAndReturns kills etcd in the middle of requests. None fails, later
// ones go on over the last known list, and once etcd is back the servers have
// registered again.
func TestEtcdGoesAndReturns(t *testing.T) {
	t.Parallel()
	w, server := newEtcdWorld(t, "2")
	for _, name := range []string{"first", "second"} {
		w.serve(t, name, "--delay", "5ms")
	}
	client := w.start(t, nil, "migrate", "request", fox, "--count", "400", "--concurrency", "50", "--output", "json")
	if err := client.await(client.stdout, `"index":2,`, 50); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	w.ended(t, client, 0)
	if n := strings.Count(client.stdout.String(), `"outcome":"success"`); n != 400 {
		t.Errorf("%d of 400 requests succeeded", n)
	}
	server.Wipe() // longer away than any lease
	server.Restart()
	awaitKeys(t, etcdtest.Client(t, server), 2)
	if out, _ := w.run(t, 0, nil, "migrate", "request", "hello", "--output", "raw"); out != "hello\n" {
		t.Errorf("the answer is %q", out)
	}
}

// TestEtcdFrozen ends servers whose etcd does not answer. They end, and say in one line
// what they could not do. So does a request that runs a server itself.
func TestEtcdFrozen(t *testing.T) {
	t.Parallel()
	w, etcd := newEtcdWorld(t, "10")
	server := w.serve(t, "server1")
	request := w.start(t, nil, "migrate", "request", strings.Repeat("x", 100), "--store-kv", "etcd", "--endpoint", "a/b/c",
		"--spawn", "spawned=always", "--wait-restore", "1h", "--cooldown", "1h")
	if err := request.await(request.stdout, "Retrying", 1); err != nil {
		t.Fatal(err)
	}
	etcd.Freeze()
	for _, end := range []struct {
		p    *process
		code int
		name string
	}{{server, 0, "serve"}, {request, 130, "request"}} {
		if err := end.p.signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		w.ended(t, end.p, end.code)
		log := end.p.stderr.String()
		warning := regexp.MustCompile(`(?m)^.* WARN ` + end.name + `: Could not leave the store in order err="releasing .*; releasing the records in etcd \(they expire within 10s\): .*"$`)
		if len(warning.FindAllString(log, -1)) != 1 || end.code == 0 && strings.Contains(log, "Error: ") {
			t.Errorf("standard error is\n%s\nwant one warning that matches %v, and no error", log, warning)
		}
	}
}

// TestEtcdPasswordChanged checks what the documentation says about a password that
// changes while a server runs: the server says so and is no longer listed, but serves on,
// and is listed again once it is restarted with the new password.
func TestEtcdPasswordChanged(t *testing.T) {
	t.Parallel()
	w, etcd := newEtcdWorld(t, "2")
	etcd.EnableAuth("one")
	w.env = append(w.env, "ETCD_AUTH_USERNAME=root", "ETCD_AUTH_PASSWORD=one")
	server := w.serve(t, "server1", "--log", "discovery=debug") // a warning may have come before, of another cause
	watch := w.watch(t, "--output", "json")
	watch.expect(t, "joined", "server1")
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd.Endpoint()}, Username: "root", Password: "one", Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if _, err := client.UserChangePassword(t.Context(), "root", "two"); err != nil {
		t.Fatal(err)
	}
	if err := server.await(server.stderr, "discovery: .*renewing the lease: .*authentication failed", 1); err != nil {
		t.Error(err)
	}
	if _, stderr := w.run(t, 1, nil, "migrate", "instances"); !strings.Contains(stderr, "authentication failed, invalid user ID or password") {
		t.Errorf("with the old password instances says %q", stderr)
	}
	w.env = append(w.env, "ETCD_AUTH_PASSWORD=two") // the last one counts
	for deadline := time.Now().Add(patience); ; time.Sleep(pollInterval) {
		out, _ := w.run(t, 0, nil, "migrate", "instances")
		if !strings.Contains(out, "server1") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server is still listed after %v:\n%s", patience, out)
		}
	}
	if err := server.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.ended(t, server, 0)
	w.serve(t, "server1")
	if out, _ := w.run(t, 0, nil, "migrate", "request", "hello", "--output", "raw"); out != "hello\n" {
		t.Errorf("the answer is %q", out)
	}
}

// TestEtcdDown checks that a store which cannot be reached is reported at once and by
// name.
func TestEtcdDown(t *testing.T) {
	t.Parallel()
	w, server := newEtcdWorld(t, "10")
	server.Kill()
	for _, args := range [][]string{{"serve"}, {"request", "hello"}, {"instances"}} {
		stdout, stderr := w.run(t, 1, nil, append([]string{"migrate"}, args...)...)
		if stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, server.Endpoint()) {
			t.Errorf("%v printed %q and %q, want one line that names %s", args, stdout, stderr, server.Endpoint())
		}
	}
}

// TestEtcdOfDynamo lists the records of a Dynamo, sends them nothing and leaves
// them alone.
func TestEtcdOfDynamo(t *testing.T) {
	t.Parallel()
	w, server := newEtcdWorld(t, "10")
	c := etcdtest.Client(t, server)
	const endpoint = "dynamo/backend/generate/"
	records := map[string]string{
		instancesPrefix + endpoint + "694d9c1d3f1a8a01": `{"type":"Endpoint","component":"backend","endpoint":"generate","namespace":"dynamo","instance_id":7587892596615842305,"transport":{"tcp":"10.0.0.5:41237/generate"}}`,
		instancesPrefix + endpoint + "1f":               `{"component":"backend","endpoint":"generate","namespace":"dynamo","instance_id":31,"transport":{"nats_tcp":"dynamo.backend.generate-1f"},"device_type":"gpu"}`,
		instancesPrefix + endpoint + "20":               `{"component":"backend","endpoint":"generate","namespace":"dynamo","instance_id":32,"transport":{"http":"http://10.0.0.6:8000"}}`,
		"v1/mdc/" + endpoint + "1f":                     `{"display_name":"a model"}`,
		instancesPrefix + "dynamo/other/generate/1f":    `{"component":"other","endpoint":"generate","namespace":"dynamo","instance_id":31,"transport":{"tcp":"10.0.0.7:1"}}`,
	}
	for key, value := range records {
		if _, err := c.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	out, _ := w.run(t, 0, nil, "migrate", "instances", "--output", "json")
	var list struct {
		Source []string `json:"instance_source"`
		Avail  []string `json:"instance_avail"`
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(list.Source, " "); got != "1f 20 694d9c1d3f1a8a01" || len(list.Avail) != 0 {
		t.Errorf("instance_source is %s, instance_avail %v", got, list.Avail)
	}
	if _, stderr := w.run(t, 3, nil, "migrate", "request", "hello", "--wait", "0s"); !strings.Contains(stderr, "no instances found") {
		t.Errorf("a request among instances of other transports says %q", stderr)
	}
	for code, command := range map[int]string{0: "instances", 3: "request hello --wait 0s"} {
		_, stderr := w.run(t, code, nil, append([]string{"migrate", "--endpoint", "no/body/here"}, strings.Fields(command)...)...)
		if !strings.Contains(stderr, "in etcd at "+server.Endpoint()) {
			t.Errorf("%s says %q of an empty etcd, want where it is", command, stderr)
		}
	}
	for key, value := range records {
		got, err := c.Get(t.Context(), key)
		if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != value || got.Kvs[0].Version != 1 {
			t.Errorf("%s was touched: %v, %v", key, got, err)
		}
	}
}
