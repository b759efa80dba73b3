// Package stream carries streamed answers over TCP as newline-delimited JSON.
//
// A [Server] answers each [Request] with lines: a start, the items, and an end
// with the count of the items. A [Client] yields the items, and an error unless
// the end came and the count was right. The error of a stream that ends in any
// other way is a [Break], and its [Kind] says what was seen.
//
// One connection carries many streams. Each stream's lines have the number that
// the client gave it; a person with nc leaves the number out and gets one answer
// at a time.
//
//	> {"data":"hi"}
//	< {"event":"start","id":"0"}
//	< {"data":"from server: server1, data: h"}
//	< {"data":"from server: server1, data: i"}
//	< {"event":"end","id":"2"}
//
// Choosing a server and retrying are up to packages discovery and router. Package
// fault makes a server fail on purpose, package metrics counts what a server does, for
// Prometheus, and package streamtest has a network in memory for tests.
package stream
