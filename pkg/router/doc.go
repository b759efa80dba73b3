// Package router sends each request to one instance of an endpoint and, when
// the stream breaks, carries on at another, at the item where it broke.
//
// It holds two tiers. instance_source is what discovery lists now: the
// authority on who is alive. instance_avail is the source less the instances
// that are down: reported as failing, each until its own deadline. Requests go
// to instances of the second tier, and pass over those of which something
// speaks against them: one that is back from a report and that another request
// tries, one that refused as overloaded, one that owes an answer. Only if nobody
// else is left do they go to those that others have reported, or that discovery
// has lost; [Step] lists the order.
//
// What a break means (whether the instance is reported down, whether the
// request goes on elsewhere, whether that counts against its attempts) is one
// table, in verdict.go. What is counted as an attempt, a refusal, a break and a
// migration [Receipt] defines.
//
// None of this knows how a stream is carried: that is package stream, or any
// other [Client].
package router
