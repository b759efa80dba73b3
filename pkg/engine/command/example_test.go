//go:build unix

package command_test

import (
	"context"
	"fmt"
	"net"

	"github.com/request-migration/migrate/pkg/engine/command"
	"github.com/request-migration/migrate/pkg/stream"
)

// A server that counts with seq, from wherever it is asked to.
func Example() {
	engine, err := command.New(command.Config{
		Args:     []string{"sh", "-c", "seq $((MIGRATE_FROM + 1)) 5"},
		ResumeBy: command.ResumeIndex,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer engine.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	server := &stream.Server{Handler: engine.Handle, Resumes: true}
	go func() { _ = server.Serve(l) }() // it ends with Close
	defer server.Close()

	client := &stream.Client{}
	defer client.Close()
	req := stream.Request{Data: stream.String("go"), From: 3}
	for item, err := range client.Stream(context.Background(), l.Addr().String(), req) {
		if err != nil {
			fmt.Println(err)
			return
		}
		text, _ := item.Text()
		fmt.Print(text)
	}
	// Output:
	// 4
	// 5
}
