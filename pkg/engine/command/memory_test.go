//go:build unix

package command_test

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"

	"github.com/request-migration/migrate/pkg/engine/command"
	"github.com/request-migration/migrate/pkg/stream"
)

// TestMemory has programs write much, in short lines and without a newline, and
// looks at the memory that this takes here.
func TestMemory(t *testing.T) {
	for name, tt := range map[string]struct {
		args  []string
		items command.Items
		bytes int
		count int // of items
	}{
		"200 MB of lines":         {[]string{"lines", "200000000", "100"}, command.Lines, 200_000_000, 2_000_000},
		"1 GiB without a newline": {[]string{"bytes", strconv.Itoa(1 << 30)}, command.Lines, 1 << 30, 1026},
		"1 GiB in chunks":         {[]string{"bytes", strconv.Itoa(1 << 30)}, command.Chunks, 1 << 30, 0},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testProgram(t, tt.args...)
			cfg.Items = tt.items
			e := newEngine(t, cfg)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			bytes, count, escaped := 0, 0, len(`""`)
			if tt.items == command.Lines && tt.args[0] == "lines" {
				escaped = len(`"\"`) // of \n, one byte is the newline
			}
			req := question("")
			err := e.Handle(ctx, &req, func(a stream.Annotated) error {
				bytes += len(a.Data) - escaped
				count++
				return ctx.Err()
			})
			runtime.ReadMemStats(&after)
			if err != nil || bytes != tt.bytes || tt.count != 0 && count != tt.count {
				t.Errorf("%d bytes came in %d items, want %d in %d: %v", bytes, count, tt.bytes, tt.count, err)
			}
			// An item of 1 MiB, and as it grew.
			if more := int64(after.Sys) - int64(before.Sys); more > 16<<20 {
				t.Errorf("%d more bytes are taken from the system, want no more than 16 MiB", more)
			}
			if more := after.TotalAlloc - before.TotalAlloc; more > 16<<20 {
				t.Errorf("%d bytes were allocated, want no more than 16 MiB: something grows with the output", more)
			}
		})
	}
}

// The output that the benchmarks measure: enough that starting a program does
// not count, in lines of 100 bytes.
const benchmarked = 200_000_000

// BenchmarkPipe measures the bare pipe: the program's output, read and dropped.
func BenchmarkPipe(b *testing.B) {
	cfg := testProgram(b, "lines", strconv.Itoa(benchmarked), "100")
	b.SetBytes(benchmarked)
	for b.Loop() {
		r, w, err := os.Pipe()
		if err != nil {
			b.Fatal(err)
		}
		cmd := exec.CommandContext(b.Context(), cfg.Args[0], cfg.Args[1:]...)
		cmd.Stdout = w
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		_ = w.Close()
		n, buf := 0, make([]byte, 64<<10)
		for {
			m, err := r.Read(buf)
			n += m
			if err == io.EOF {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		_ = r.Close()
		if err := cmd.Wait(); err != nil || n != benchmarked {
			b.Fatalf("%d bytes came: %v", n, err)
		}
	}
}

// BenchmarkItems measures the same output as the items of a handler.
func BenchmarkItems(b *testing.B) {
	for _, items := range []command.Items{command.Lines, command.Chunks} {
		b.Run(string(items), func(b *testing.B) {
			cfg := testProgram(b, "lines", strconv.Itoa(benchmarked), "100")
			cfg.Items = items
			e := newEngine(b, cfg)
			b.SetBytes(benchmarked)
			for b.Loop() {
				req := question("")
				if err := e.Handle(b.Context(), &req, func(stream.Annotated) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkServed measures it through a server and a client on loopback, both in
// this process.
func BenchmarkServed(b *testing.B) {
	for _, items := range []command.Items{command.Lines, command.Chunks} {
		b.Run(string(items), func(b *testing.B) {
			cfg := testProgram(b, "lines", strconv.Itoa(benchmarked), "100")
			cfg.Items = items
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			server := &stream.Server{Handler: newEngine(b, cfg).Handle}
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = server.Serve(l) // it is closed
			}()
			client := &stream.Client{}
			defer func() {
				client.Close()
				server.Close()
				<-done
			}()
			b.SetBytes(benchmarked)
			for b.Loop() {
				for _, err := range client.Stream(b.Context(), l.Addr().String(), question("")) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkStart measures a request whose program does nothing.
func BenchmarkStart(b *testing.B) {
	e := newEngine(b, command.Config{Args: []string{"true"}})
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req := question("")
			if err := e.Handle(b.Context(), &req, nil); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkBareStart measures the same with package exec.
func BenchmarkBareStart(b *testing.B) {
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := exec.CommandContext(b.Context(), "true").Output(); err != nil {
				b.Error(err)
			}
		}
	})
}
