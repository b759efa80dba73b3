package server_test

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/server"
	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/metrics"
)

// A whole program: a server with a handler of its own, a client that finds it, and the order
// in which both leave. In a real program ctx is the one of signal.NotifyContext, the server
// and the client are different processes, and the store is one that both see.
func Example() {
	ctx, leave := context.WithCancel(context.Background())
	store := new(discovery.Mem)
	registry := discovery.NewRegistry(store, nil)
	endpoint := discovery.Endpoint{Namespace: "demo", Component: "text", Name: "words"}

	words := func(_ context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		text, ok := req.Text()
		if !ok {
			return errors.New("data is not a string")
		}
		for word := range strings.FieldsSeq(text) {
			if err := send(stream.Annotated{Data: stream.String(word)}); err != nil {
				return err
			}
		}
		return nil
	}
	m := metrics.New(endpoint.String(), "server1")
	prometheus.MustRegister(m) // for promhttp.Handler
	left := make(chan error, 1)
	go func() {
		left <- server.Serve(ctx, server.Config{
			Server: &stream.Server{Handler: m.Handler(words), Refused: m.Refused}, Registry: registry,
			Instance: discovery.Instance{Name: "server1", Endpoint: endpoint, Resume: discovery.ResumeNo},
		})
	}()

	client := &stream.Client{}
	r := router.New(router.Config{
		Endpoint: endpoint, Source: registry, Reports: registry,
		Client: router.StreamClient(client), Wait: router.DefaultCooldown,
	})
	for item, err := range r.Do(ctx, router.Request{Data: stream.String("streams that outlive their server")}) {
		if err != nil {
			fmt.Println(err)
			break
		}
		word, _ := item.Text()
		fmt.Println(item.Index, word)
	}
	r.Close()
	client.Close()
	leave()
	fmt.Println(<-left, store.Close())
	items, err := testutil.GatherAndCount(prometheus.DefaultGatherer, "migrate_server_items_total")
	fmt.Println(items, err)
	// Output:
	// 0 streams
	// 1 that
	// 2 outlive
	// 3 their
	// 4 server
	// <nil> <nil>
	// 1 <nil>
}
