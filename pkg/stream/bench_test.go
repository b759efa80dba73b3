package stream_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// many sends n items of the usual size.
func many(n int) stream.Handler {
	item := stream.String("from server: server1, data: h")
	return func(_ context.Context, _ *stream.Request, send func(stream.Annotated) error) error {
		for range n {
			if err := send(stream.Annotated{Data: item}); err != nil {
				return err
			}
		}
		return nil
	}
}

// ask makes a request and fails unless n items arrive.
func ask(b *testing.B, c *stream.Client, addr string, req stream.Request, n int) {
	b.Helper()
	got := 0
	for _, err := range c.Stream(b.Context(), addr, req) {
		if err != nil {
			b.Error(err)
			return
		}
		got++
	}
	if got != n {
		b.Errorf("%d items, want %d", got, n)
	}
}

// BenchmarkItems measures an item of one stream at full speed.
func BenchmarkItems(b *testing.B) {
	b.ReportAllocs()
	addr := serve(b, &stream.Server{Handler: many(b.N)})
	c := newClient(b, &stream.Client{})
	b.ResetTimer()
	ask(b, c, addr, text("x"), b.N)
}

// BenchmarkEscapedItems does the same with data that needs the full JSON
// parser.
func BenchmarkEscapedItems(b *testing.B) {
	b.ReportAllocs()
	addr := serve(b, &stream.Server{Handler: func(_ context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		for range b.N {
			if err := send(stream.Annotated{Data: req.Data}); err != nil {
				return err
			}
		}
		return nil
	}})
	c := newClient(b, &stream.Client{})
	b.ResetTimer()
	ask(b, c, addr, text("from server: \"server1\", data: h\n"), b.N)
}

// BenchmarkItems100Streams measures an item of a hundred such streams.
func BenchmarkItems100Streams(b *testing.B) {
	b.ReportAllocs()
	n := b.N/100 + 1
	addr := serve(b, &stream.Server{Handler: many(n)})
	c := newClient(b, &stream.Client{})
	b.ResetTimer()
	done := make(chan bool)
	for range 100 {
		go func() {
			defer func() { done <- true }()
			ask(b, c, addr, text("x"), n)
		}()
	}
	for range 100 {
		<-done
	}
}

// BenchmarkPacedItems measures an item of a hundred streams that send one every
// 10 ms each. What counts is the CPU time, which is not shown here: measure the
// process.
func BenchmarkPacedItems(b *testing.B) {
	b.ReportAllocs()
	n := b.N/100 + 1
	addr := serve(b, &stream.Server{Handler: stream.Echo("server1", 10*time.Millisecond)})
	c := newClient(b, &stream.Client{})
	req := text(strings.Repeat("h", n))
	b.ResetTimer()
	done := make(chan bool)
	for range 100 {
		go func() {
			defer func() { done <- true }()
			ask(b, c, addr, req, n)
		}()
	}
	for range 100 {
		<-done
	}
}

// BenchmarkShortRequests measures a request of eleven items among sixteen at
// once.
func BenchmarkShortRequests(b *testing.B) {
	b.ReportAllocs()
	addr := serve(b, echo("server1"))
	c := newClient(b, &stream.Client{})
	req := text("hello world")
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			ask(b, c, addr, req, 11)
		}
	})
}

// BenchmarkFirstItem measures requests of one item, one after another: latency.
func BenchmarkFirstItem(b *testing.B) {
	b.ReportAllocs()
	addr := serve(b, echo("server1"))
	c := newClient(b, &stream.Client{})
	req := text("h")
	for b.Loop() {
		ask(b, c, addr, req, 1)
	}
}

// BenchmarkConnect does the same with a connection for each request.
func BenchmarkConnect(b *testing.B) {
	b.ReportAllocs()
	addr := serve(b, echo("server1"))
	req := text("h")
	for b.Loop() {
		var c stream.Client
		ask(b, &c, addr, req, 1)
		c.Close()
	}
}

// BenchmarkCancel measures a request that its caller leaves after the first
// item.
func BenchmarkCancel(b *testing.B) {
	b.ReportAllocs()
	addr := serve(b, &stream.Server{Handler: func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		if err := send(stream.Annotated{Data: req.Data}); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}})
	c := newClient(b, &stream.Client{})
	for b.Loop() {
		for _, err := range c.Stream(b.Context(), addr, text("x")) {
			if err != nil {
				b.Fatal(err)
			}
			break
		}
	}
}
