//go:build unix

package file

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The environment of a process that BenchmarkAtRest starts: its role and its store.
const (
	roleVariable = "FILE_TEST_ROLE"
	dirVariable  = "FILE_TEST_DIR"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		if err := rest(role, os.Getenv(dirVariable), os.Stdin, os.Stdout); err != nil { //nolint:forbidigo // it is this process's main function
			panic(err)
		}
		return
	}
	m.Run()
}

// BenchmarkAtRest measures what idle servers and clients cost, each a process of its
// own with the standard timing: the CPU time a second of all of either kind, and the
// fewest records that a client has seen. An operation is a minute.
func BenchmarkAtRest(b *testing.B) {
	const minute = time.Minute
	for _, size := range []struct{ servers, watchers int }{{100, 0}, {1000, 0}, {1000, 20}} {
		b.Run(fmt.Sprintf("servers=%d/watchers=%d", size.servers, size.watchers), func(b *testing.B) {
			dir := b.TempDir()
			servers := startAll(b, size.servers, "server", dir)
			watchers := startAll(b, size.watchers, "watcher", dir)
			fewest := size.servers
			var serving, watching time.Duration
			for b.Loop() {
				ask(b, servers)
				ask(b, watchers)
				<-time.After(minute)
				cpu, _ := ask(b, servers)
				serving += cpu
				cpu, seen := ask(b, watchers)
				watching += cpu
				if size.watchers == 0 { // then somebody has to look at the end
					seen = len(strings.Fields(keysThere(b, dir)))
				}
				fewest = min(fewest, seen)
			}
			seconds := float64(b.N) * minute.Seconds()
			b.ReportMetric(float64(serving.Milliseconds())/seconds, "servers-cpu-ms/s")
			b.ReportMetric(float64(watching.Milliseconds())/seconds, "watchers-cpu-ms/s")
			b.ReportMetric(float64(fewest), "records-at-least")
		})
	}
}

func keysThere(b *testing.B, dir string) string {
	b.Helper()
	for snap, err := range openWith(b, Config{Dir: dir}).Watch(b.Context(), bucketName+"/") {
		if err != nil {
			b.Fatal(err)
		}
		return keysOf(snap)
	}
	return ""
}

// A resting process puts a record or watches, and does nothing else.
type resting struct {
	in  io.WriteCloser
	out *bufio.Reader
}

// startAll starts n processes, which end with the benchmark.
func startAll(b *testing.B, n int, role, dir string) []resting {
	b.Helper()
	all := make([]resting, n)
	for i := range all {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), roleVariable+"="+role, dirVariable+"="+dir)
		cmd.Stderr = b.Output()
		in, err := cmd.StdinPipe()
		if err != nil {
			b.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			shut(in)
			if err := cmd.Wait(); err != nil {
				b.Error(err)
			}
		})
		all[i] = resting{in: in, out: bufio.NewReader(out)}
		all[i].ask(b)
	}
	return all
}

// ask asks all processes at once for their CPU time since the last ask, which it adds
// up, and for the fewest records that one of them has seen.
func ask(b *testing.B, all []resting) (cpu time.Duration, fewest int) {
	b.Helper()
	fewest = 1 << 30
	for _, r := range all {
		used, seen := r.ask(b)
		cpu += used
		fewest = min(fewest, seen)
	}
	return cpu, fewest
}

func (r resting) ask(b *testing.B) (cpu time.Duration, fewest int) {
	b.Helper()
	if _, err := io.WriteString(r.in, "?\n"); err != nil {
		b.Fatal(err)
	}
	if _, err := fmt.Fscan(r.out, &cpu, &fewest); err != nil {
		b.Fatal(err)
	}
	return cpu, fewest
}

// rest is the main function of a resting process. It answers each line of in with its
// CPU time since the last one, in nanoseconds, and the fewest records seen since.
func rest(role, dir string, in io.Reader, out io.Writer) error {
	s, err := Open(Config{Dir: dir})
	if err != nil {
		return err
	}
	defer shut(s)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var current, fewest atomic.Int64
	if role == "server" {
		if _, err := s.Put(ctx, ep+strconv.Itoa(os.Getpid()), []byte(strings.Repeat("x", 200)), 0); err != nil {
			return err
		}
	} else {
		go func() {
			for snap, err := range s.Watch(ctx, bucketName+"/") {
				if err != nil {
					return
				}
				current.Store(int64(len(snap.Records)))
				fewest.Store(min(fewest.Load(), current.Load()))
			}
		}()
	}
	var last time.Duration
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var usage syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
			return err
		}
		now := time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
		if _, err := fmt.Fprintln(out, int64(now-last), fewest.Swap(current.Load())); err != nil {
			return err
		}
		last = now
	}
	return nil
}
