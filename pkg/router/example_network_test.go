package router_test

import (
	"context"
	"fmt"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/streamtest"
)

// Two real servers without a socket, of which one ends in the middle of an answer, and a router that carries the
// answer on.
func Example_withoutSockets() {
	const message = "hello"
	var network streamtest.Network
	endpoint := discovery.Endpoint{Namespace: "demo", Component: "echo", Name: "chars"}
	first := &stream.Server{Resumes: true}
	first.Handler = func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		items := 0
		return stream.Echo("first", 0)(ctx, req, func(a stream.Annotated) error {
			if items++; items > 2 {
				return stream.ErrFailed
			}
			return send(a)
		})
	}
	second := &stream.Server{Handler: stream.Echo("second", 0), Resumes: true}
	var instances []discovery.Instance
	for n, server := range []*stream.Server{first, second} {
		addr := fmt.Sprintf("host%d:1", n+1)
		go server.Serve(network.Listen(addr))
		defer server.Close()
		instances = append(instances, discovery.Instance{
			ID: discovery.InstanceID(n + 1), Name: addr, Endpoint: endpoint, Transport: discovery.NDJSON, Address: addr, Resume: discovery.ResumeIndex,
		})
	}
	client := &stream.Client{Dial: network.Dial}
	defer client.Close()
	r := router.New(router.Config{Endpoint: endpoint, Source: discovery.Static(instances...), Client: router.StreamClient(client)})
	defer r.Close()

	for item, err := range r.Do(context.Background(), router.Request{Data: stream.String(message), Instance: "host1:1"}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		text, _ := item.Text()
		fmt.Println(text)
	}
	// Output:
	// from server: first, data: h
	// from server: first, data: e
	// from server: second, data: l
	// from server: second, data: l
	// from server: second, data: o
}
