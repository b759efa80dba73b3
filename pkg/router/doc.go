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
// What a break means (whether the instance is reported down, whether the
// request goes on elsewhere, whether that counts against its attempts) is one
// table, in verdict.go. Package receipt defines what counts as an attempt, a
// refusal, a break and a migration.
//
// A [Client] carries the streams: [StreamClient] is that of package stream. Package
// routertest has one for tests, which needs no socket.
package router
