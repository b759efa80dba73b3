package router_test

import (
	"context"
	"fmt"
	"net"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/fault"
)

// echo starts an echo server that breaks the requests of mode after two items.
func echo(id discovery.InstanceID, name string, mode fault.Mode) discovery.Instance {
	faulty := fault.Inject(stream.Echo(name, 0), fault.Fault{Mode: mode, After: 2})
	server := &stream.Server{Handler: faulty.Handle, Resumes: true}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() { _ = server.Serve(l) }() // for as long as the example runs
	return discovery.Instance{ID: id, Name: name, Transport: discovery.NDJSON, Address: l.Addr().String()}
}

// A stream that breaks on server1 carries on at server2.
func Example() {
	server1, server2 := echo(1, "server1", fault.Always), echo(2, "server2", fault.Never)

	client := &stream.Client{}
	defer client.Close()
	r := router.New(router.Config{
		Source: discovery.Static(server1, server2),
		Client: router.StreamClient(client),
	})
	defer r.Close()

	req := router.Request{Data: stream.String("hello"), Instance: "server1"}
	for item, err := range r.Do(context.Background(), req) {
		if err != nil {
			fmt.Println(err)
			return
		}
		text, _ := item.Text()
		fmt.Println(text)
	}
	// Output:
	// from server: server1, data: h
	// from server: server1, data: e
	// from server: server2, data: l
	// from server: server2, data: l
	// from server: server2, data: o
}

// A trace follows what happens to a request, beside its items.
func ExampleTrace() {
	client := &stream.Client{}
	defer client.Close()
	r := router.New(router.Config{
		Source: discovery.Static(echo(1, "server1", fault.Always), echo(2, "server2", fault.Never)),
		Client: router.StreamClient(client),
	})
	defer r.Close()

	trace := &router.Trace{
		Attempt: func(e router.AttemptEvent) { fmt.Printf("attempt %d\n", e.Attempt) },
		Break:   func(e router.BreakEvent) { fmt.Printf("%s broke: %v\n", e.Instance.Name, e.Kind()) },
		Down:    func(d router.Down) { fmt.Printf("%s is down for %v\n", d.Instance.Name, d.Until.Sub(d.Since)) },
		Done:    func(e router.DoneEvent) { fmt.Println("done:", e.Err) },
	}
	req := router.Request{Data: stream.String("hello"), Instance: "server1", Trace: trace}
	for item, err := range r.Do(context.Background(), req) {
		if err == nil {
			fmt.Printf("item %d from %s\n", item.Index, item.Peer.Name)
		}
	}
	// Output:
	// attempt 1
	// item 0 from server1
	// item 1 from server1
	// server1 broke: failed
	// server1 is down for 5s
	// attempt 2
	// item 2 from server2
	// item 3 from server2
	// item 4 from server2
	// done: <nil>
}
