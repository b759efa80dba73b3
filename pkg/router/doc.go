// Package router sends each request to one instance of an endpoint and, when
// the stream breaks, carries on at another, at the item where it broke.
//
// It holds two tiers. instance_source is what discovery lists now: the
// authority on who is alive. instance_avail is the source less the instances
// that are down: reported as failing, each until its own deadline. Requests go
// to available instances, and pass over an instance that is back from a report
// while another request tries it, that refused as overloaded, or that owes an
// answer. Only if no other instance is left do they go to instances that other
// clients have reported, or that discovery has lost; [Step] lists the order.
//
// A program makes one [Router] for each endpoint, and closes it before the client and
// the store:
//
//	client := &stream.Client{}
//	r := router.New(router.Config{
//		Endpoint: endpoint, Source: registry, Reports: registry, Client: router.StreamClient(client),
//	})
//	for item, err := range r.Do(ctx, router.Request{Data: stream.String("hello")}) {
//		…
//	}
//
// What it works with can be replaced: the [Source] of the instances ([discovery.Static]
// is a fixed one), the [Picker] that chooses among them, and the [Client] that carries
// the streams. A [Trace] follows what happens to a request.
//
// What a break means (whether the instance is reported down, whether the
// request goes on elsewhere, whether that counts against its attempts) is one
// table, in verdict.go. Package receipt defines what counts as an attempt, a
// refusal, a break and a migration, and package metrics counts them for Prometheus.
// Package routertest has a client for tests, which plays answers and breaks.
package router
