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
	// pausedBound is what a client that is paused allows for, and pausedFor how
	// long it is. A server that is itself kept from running keeps within the
	// first.
	pausedBound = 2 * time.Second
	pausedFor   = 3 * time.Second
)

// A client that was stopped for longer than it waits for a server blames nobody
// when it goes on.
func TestPausedClient(t *testing.T) {
	const pausedAddr = "MIGRATE_TEST_PAUSED_ADDR"
	if addr := os.Getenv(pausedAddr); addr != "" {
		runPausedClient(t, addr)
		return
	}
	for i := range 5 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			var sent atomic.Int64
			addr := serve(t, &stream.Server{Handler: func(ctx context.Context, req stream.Request, send func(stream.Annotated) error) error {
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
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPausedClient$")
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
				_ = cmd.Process.Kill() // it does not end by itself
				for range lines {
				}
				_ = cmd.Wait()
			}()
			signal := func(s os.Signal) {
				if err := cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
			}
			hears(t, lines, 1)
			for range 2 {
				signal(syscall.SIGSTOP)
				<-time.After(pausedFor)
				signal(syscall.SIGCONT)
				hears(t, lines, sent.Load()+50) // a second on
			}
		})
	}
}

// hears waits until a client says that it has item n. It must not blame the server.
func hears(t *testing.T, lines <-chan string, n int64) {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatalf("the client ended before item %d", n)
			}
			if strings.HasPrefix(line, "blamed") {
				t.Error(line)
			}
			var got int64
			if _, err := fmt.Sscanf(line, "item %d", &got); err == nil && got >= n {
				return
			}
		case <-deadline:
			t.Fatalf("the client does not come to item %d", n)
		}
	}
}

// runPausedClient says which items it gets, and for what it blames the server.
func runPausedClient(t *testing.T, addr string) {
	c := &stream.Client{StartTimeout: pausedBound, StallTimeout: pausedBound, ItemTimeout: pausedBound}
	defer c.Close()
	ask := func(what string, show bool) {
		for a, err := range c.Stream(t.Context(), addr, text(what)) {
			if err == nil && show {
				fmt.Printf("item %s\n", a.Data)
			}
			if b, ok := err.(*stream.Break); ok && !b.NoReport { //nolint:errorlint // the client wraps nothing
				fmt.Printf("blamed %v\n", b)
			}
		}
	}
	go func() {
		for range time.Tick(20 * time.Millisecond) {
			ask("short", false)
		}
	}()
	for {
		ask("long", true)
	}
}
