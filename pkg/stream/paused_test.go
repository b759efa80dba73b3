//go:build unix

package stream_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

const (
	// pausedBound is the paused client's bound, and pausedFor how long it is
	// paused. A server that is itself kept from running stays within the first.
	pausedBound = 2 * time.Second
	pausedFor   = 3 * time.Second
	// pausedClients is how many clients there are in the paused process.
	pausedClients = 10
)

// Clients that were stopped for longer than their bounds report nobody when
// they go on.
func TestPausedClient(t *testing.T) {
	t.Parallel()
	const pausedAddr = "MIGRATE_TEST_PAUSED_ADDR"
	if addr := os.Getenv(pausedAddr); addr != "" {
		for i := range pausedClients {
			go runPausedClient(t, i, addr)
		}
		<-t.Context().Done() // it is killed
	}
	var sent atomic.Int64
	addr := serve(t, &stream.Server{Handler: func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			if err := send(stream.Annotated{Data: fmt.Append(nil, sent.Add(1))}); err != nil || string(req.Data) == `"short"` {
				return err
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}})
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPausedClient$", "-test.v")
	cmd.Env = append(os.Environ(), pausedAddr+"="+addr)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for r := bufio.NewScanner(out); r.Scan(); {
			lines <- r.Text()
		}
	}()
	defer func() {
		_ = cmd.Process.Kill() // as above
		for range lines {
		}
		_ = cmd.Wait()
	}()
	signal := func(s os.Signal) {
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	hear(t, lines, 1)
	for range 2 {
		signal(syscall.SIGSTOP)
		<-time.After(pausedFor)
		signal(syscall.SIGCONT)
		hear(t, lines, sent.Load()+50*pausedClients) // a second on
	}
}

// hear waits until each client has printed that it has item n or a later one.
// None may report the server.
func hear(t *testing.T, lines <-chan string, n int64) {
	t.Helper()
	heard := map[int]bool{}
	for deadline := time.After(patience); len(heard) < pausedClients; {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatalf("the process ended before item %d", n)
			}
			if strings.Contains(line, "reported") {
				t.Error(line)
			}
			_, said, _ := strings.Cut(line, ": client ")
			var client int
			var item int64
			if _, err := fmt.Sscanf(said, "%d has item %d", &client, &item); err == nil && item >= n {
				heard[client] = true
			}
		case <-deadline:
			t.Fatalf("%d of %d clients came to item %d", len(heard), pausedClients, n)
		}
	}
}

// runPausedClient prints which items it gets, and for what it reports the
// server.
func runPausedClient(t *testing.T, i int, addr string) {
	t.Helper()
	c := &stream.Client{StartTimeout: pausedBound, StallTimeout: pausedBound, ItemTimeout: pausedBound}
	defer c.Close()
	ask := func(what string) {
		for a, err := range c.Stream(t.Context(), addr, text(what)) {
			if err == nil {
				t.Logf("client %d has item %s", i, a.Data)
			} else if b := asBreak(t, err); !b.NoReport {
				t.Logf("client %d reported the server: %v", i, b)
			}
		}
	}
	go func() {
		for range time.Tick(20 * time.Millisecond) {
			ask("short")
		}
	}()
	for {
		ask("long")
	}
}
