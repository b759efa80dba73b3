//go:build unix

package etcd

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/etcd/etcdtest"
)

const (
	crowd = 20_000 // instances
	joins = 200    // new instances a second

	// joinerEnv has the endpoint for a test binary that is to be the joiner.
	joinerEnv = "ETCD_TEST_JOINER"
)

// TestMain makes the test binary its own joiner.
func TestMain(m *testing.M) {
	if endpoint := os.Getenv(joinerEnv); endpoint != "" {
		panic(join(endpoint))
	}
	m.Run()
}

// join registers instances until it is killed. It has a process of its own, so that its
// costs don't count as its readers'.
func join(endpoint string) error {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: patient})
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	tick := time.NewTicker(time.Second / joins)
	defer tick.Stop()
	for n := crowd; ; n++ {
		<-tick.C
		ctx, cancel := context.WithTimeout(context.Background(), patient)
		_, err := client.Put(ctx, fleetKey(n), string(fleetValue(n)))
		cancel()
		if err != nil {
			return err
		}
	}
}

// BenchmarkJoins20k measures what joining instances cost one client. Each loop watches
// for a second.
func BenchmarkJoins20k(b *testing.B) {
	server := etcdtest.Start(b, etcdtest.Config{})
	fill(b, server)
	s := openStore(b, at(server))
	registry := discovery.NewRegistry(s, nil)
	endpoint, err := discovery.ParseEndpoint("dynamo/backend/generate")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	joiner := exec.CommandContext(ctx, os.Args[0])
	joiner.Env = append(os.Environ(), joinerEnv+"="+server.Endpoint())
	if err := joiner.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { cancel(); _ = joiner.Wait() }() // it was killed
	joined, ended := make(chan struct{}), make(chan int)
	go func() {
		sets := 0
		for set, err := range registry.Watch(ctx, endpoint) {
			if err != nil {
				break
			}
			if len(set.List) <= crowd {
				continue
			}
			if sets++; sets == 1 {
				close(joined)
			}
		}
		ended <- sets
	}()
	select {
	case <-joined:
	case <-time.After(patient):
		b.Fatalf("nobody has joined within %v", patient)
	}

	before, began := used(b), time.Now()
	for b.Loop() {
		<-time.After(time.Second)
	}
	took := time.Since(began).Seconds()
	after := used(b)
	cancel()
	b.ReportMetric((after.cpu-before.cpu).Seconds()/took, "cores")
	b.ReportMetric(float64(after.allocated-before.allocated)/1e6/took, "MB/s")
	b.ReportMetric(float64(<-ended-1)/took, "sets/s")
}

// fill puts the records of the crowd.
func fill(b *testing.B, server *etcdtest.Server) {
	b.Helper()
	client := etcdtest.Client(b, server)
	for n := 0; n < crowd; n += batchRecords {
		puts := make([]clientv3.Op, batchRecords)
		for i := range puts {
			puts[i] = clientv3.OpPut(fleetKey(n+i), string(fleetValue(n+i)))
		}
		if _, err := client.Txn(b.Context()).Then(puts...).Commit(); err != nil {
			b.Fatal(err)
		}
	}
}

// A usage is what this process has used.
type usage struct {
	cpu       time.Duration
	allocated uint64
}

func used(b *testing.B) usage {
	b.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{time.Duration(r.Utime.Nano() + r.Stime.Nano()), m.TotalAlloc}
}
