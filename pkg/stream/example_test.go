package stream_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/fault"
)

// A server and a client, on a socket.
func Example() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	server := &stream.Server{Handler: stream.Echo("server1", 0), Resumes: true}
	defer server.Close()
	go func() { _ = server.Serve(l) }() // until Close

	var client stream.Client
	defer client.Close()
	req := stream.Request{Data: stream.String("hello"), From: 3}
	for item, err := range client.Stream(context.Background(), l.Addr().String(), req) {
		if err != nil {
			fmt.Println(err)
			return
		}
		s, _ := item.Text()
		fmt.Println(s)
	}
	// Output:
	// from server: server1, data: l
	// from server: server1, data: o
}

// A custom handler answers a question word by word.
func ExampleHandler() {
	words := func(_ context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		s, ok := req.Text()
		if !ok {
			return errors.New("want a string") // the request's own fault: nobody retries
		}
		for i, word := range strings.Fields(s) {
			if i < req.From {
				continue // the client has it already, from another server
			}
			if err := send(stream.Annotated{Data: stream.String(word)}); err != nil {
				return err
			}
		}
		return nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	server := &stream.Server{Handler: words, Resumes: true}
	defer server.Close()
	go func() { _ = server.Serve(l) }() // until Close

	var client stream.Client
	defer client.Close()
	for _, data := range []string{`"to be or not"`, `42`} {
		for item, err := range client.Stream(context.Background(), l.Addr().String(), stream.Request{Data: []byte(data)}) {
			if err != nil {
				fmt.Println(err)
				break
			}
			fmt.Printf("%s\n", item.Data)
		}
	}
	// Output:
	// "to"
	// "be"
	// "or"
	// "not"
	// application: want a string
}

// errors.Is asks for the kind of a break; errors.As gives the whole *Break.
func ExampleKind() {
	faulty := fault.Inject(stream.Echo("server1", 0), fault.Fault{
		Mode: fault.Always, Kind: fault.Close, After: 2,
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	server := &stream.Server{Handler: faulty.Handle, Admit: faulty.Admit}
	defer server.Close()
	go func() { _ = server.Serve(l) }() // until Close

	var client stream.Client
	defer client.Close()
	n := 0
	for _, err := range client.Stream(context.Background(), l.Addr().String(), stream.Request{Data: stream.String("hello")}) {
		switch {
		case err == nil:
			n++
		case errors.Is(err, stream.Truncated), errors.Is(err, stream.Reset):
			fmt.Printf("lost the connection after %d items\n", n)
		case errors.Is(err, stream.Application):
			fmt.Println("the request itself failed:", err)
		default:
			fmt.Println(err)
		}
	}
	// Output:
	// lost the connection after 2 items
}
