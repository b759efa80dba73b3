package discovery_test

import (
	"context"
	"fmt"

	"github.com/request-migration/migrate/pkg/discovery"
)

func Example() {
	store := new(discovery.Mem)
	registry := discovery.NewRegistry(store, nil)
	endpoint, err := discovery.ParseEndpoint("dynamo/backend/generate")
	if err != nil {
		fmt.Println(err)
		return
	}

	ctx := context.Background()
	_, lease, err := registry.Register(ctx, discovery.Instance{
		ID:        0x4d2,
		Name:      "server1",
		Endpoint:  endpoint,
		Transport: discovery.NDJSON,
		Address:   "127.0.0.1:41001",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for set, err := range registry.Watch(ctx, endpoint) {
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, i := range set.List {
			fmt.Println(i.ID, i.Name, i.Address)
		}
		if len(set.List) == 0 {
			fmt.Println("nobody is left")
			break
		}
		if err := lease.Release(ctx); err != nil {
			fmt.Println(err)
			return
		}
	}
	// Output:
	// 4d2 server1 127.0.0.1:41001
	// nobody is left
}

func ExampleStatic() {
	endpoint := discovery.Endpoint{Namespace: "dynamo", Component: "backend", Name: "generate"}
	static := discovery.Static(
		discovery.Instance{ID: 1, Endpoint: endpoint, Transport: discovery.NDJSON, Address: "127.0.0.1:41001"},
		discovery.Instance{ID: 2, Endpoint: endpoint, Transport: discovery.NDJSON, Address: "127.0.0.1:41002"},
	)
	for set, err := range static.Watch(context.Background(), endpoint) {
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, i := range set.List {
			fmt.Println(i.ID, i.Address)
		}
		break
	}
	// Output:
	// 1 127.0.0.1:41001
	// 2 127.0.0.1:41002
}

func ExampleRegistry_List() {
	store := new(discovery.Mem)
	registry := discovery.NewRegistry(store, nil)
	endpoint := discovery.Endpoint{Namespace: "dynamo", Component: "backend", Name: "generate"}
	set, err := registry.List(context.Background(), endpoint)
	fmt.Println(len(set.List), err)
	// Output: 0 <nil>
}
