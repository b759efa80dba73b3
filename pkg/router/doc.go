// Package router sends each request to one instance of an endpoint and, when
// the stream breaks, carries on at another.
//
// It holds two tiers. instance_source is what discovery lists now: the
// authority on who is alive. instance_avail is the source less the instances
// that are down: reported as failing, each until its own deadline. Requests go
// to instances of the second tier only.
//
// What a break means (whether the instance is reported down, whether the
// request goes on elsewhere, whether that counts against its attempts) is one
// table, in verdict.go.
//
// None of this knows how a stream is carried: that is package stream, or any
// other [Client].
package router
