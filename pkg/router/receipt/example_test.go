package receipt_test

import (
	"context"
	"fmt"
	"net"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/router/receipt"
	"github.com/request-migration/migrate/pkg/stream"
)

// A recorder keeps the account of a request. Nobody listens at server1 any more.
func ExampleRecorder() {
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		return l
	}
	gone, l := listen(), listen()
	gone.Close()
	server := &stream.Server{Handler: stream.Echo("server2", 0), Resumes: true}
	go func() { _ = server.Serve(l) }() // until it is closed
	defer server.Close()

	client := &stream.Client{}
	defer client.Close()
	r := router.New(router.Config{
		Source: discovery.Static(
			discovery.Instance{ID: 1, Name: "server1", Transport: discovery.NDJSON, Address: gone.Addr().String()},
			discovery.Instance{ID: 2, Name: "server2", Transport: discovery.NDJSON, Address: l.Addr().String()},
		),
		Client: router.StreamClient(client),
	})
	defer r.Close()

	var recorder receipt.Recorder
	req := router.Request{Data: stream.String("hello"), Instance: "server1", Trace: recorder.Trace()}
	for _, err := range r.Do(context.Background(), req) {
		if err != nil {
			fmt.Println(err)
		}
	}
	account := recorder.Receipt()
	fmt.Printf("%s: %d items in %d attempts\n", account.Outcome, account.Items, len(account.Attempts))
	for _, part := range account.Served {
		fmt.Printf("items %d to %d from %s\n", part.From, part.To-1, part.Name)
	}
	// Output:
	// success: 5 items in 2 attempts
	// items 0 to 4 from server2
}
