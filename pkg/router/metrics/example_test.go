package metrics_test

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/router/metrics"
	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/fault"
)

// echo starts an echo server that breaks the requests of mode after two items.
func echo(id discovery.InstanceID, name string, mode fault.Mode) discovery.Instance {
	faulty := fault.Inject(stream.Echo(name, 0), fault.Fault{Mode: mode, After: 2})
	server := &stream.Server{Handler: faulty.Handle, Admit: faulty.Admit, Resumes: true}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() { _ = server.Serve(l) }() // until the process ends
	return discovery.Instance{ID: id, Name: name, Transport: discovery.NDJSON, Address: l.Addr().String()}
}

// A request migrates, and the collector has counted it.
func Example() {
	endpoint := discovery.Endpoint{Namespace: "dynamo", Component: "backend", Name: "generate"}
	client := &stream.Client{}
	defer client.Close()

	m := metrics.New(endpoint)
	r := router.New(router.Config{
		Endpoint: endpoint,
		Source:   discovery.Static(echo(1, "server1", fault.Always), echo(2, "server2", fault.Never)),
		Client:   router.StreamClient(client),
		Trace:    m.Trace, // counts the requests
	})
	defer r.Close()
	m.Watch(r) // shows the two tiers

	// Most programs take prometheus.DefaultRegisterer, and serve
	// promhttp.Handler() at /metrics.
	registry := prometheus.NewRegistry()
	registry.MustRegister(m)

	for _, err := range r.Do(context.Background(), router.Request{Data: stream.String("hello"), Instance: "server1"}) {
		if err != nil {
			fmt.Println(err)
		}
	}

	families, err := registry.Gather()
	if err != nil {
		fmt.Println(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			var labels []string
			for _, l := range metric.GetLabel() {
				if l.GetName() != "endpoint" {
					labels = append(labels, l.GetValue())
				}
			}
			if v := metric.GetCounter().GetValue() + metric.GetGauge().GetValue(); v > 0 {
				fmt.Println(family.GetName(), strings.Join(labels, " "), v)
			}
		}
	}
	// Output:
	// migrate_router_attempts_total  2
	// migrate_router_breaks_total failed 1
	// migrate_router_choices_total avail 1
	// migrate_router_choices_total named 1
	// migrate_router_instances_avail  1
	// migrate_router_instances_down  1
	// migrate_router_instances_source  2
	// migrate_router_migrated_requests_total success 1
	// migrate_router_migrations_total  1
	// migrate_router_requests_total success 1
}
